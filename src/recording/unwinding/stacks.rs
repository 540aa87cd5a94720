//! Stacks that came as memory, walked here; and what names functions of scripts and did not come with their stacks.

use super::*;

impl Unwinding {
    /// Walks stacks that have waited: those of some processes, and those that have waited too long.
    pub(super) fn release_held(&mut self, objects: &Objects, of: impl Fn(u32) -> bool) {
        for (time_ns, then, dump) in std::mem::take(&mut self.held) {
            let waits_longer = self.builds() || !is_old(time_ns);
            if waits_longer && !of(dump.key.tgid) {
                self.held.push((time_ns, then, dump));
                continue;
            }
            match self.walk(&dump, then.regions(), objects) {
                (_, true) if waits_longer => self.held.push((time_ns, then, dump)),
                (stack, _) => self.late.push((time_ns, then, stack)),
            }
        }
    }

    /// Walks a stack that came as memory, by the mappings that its process had then; keeps it if one of
    /// their tables is still being built.
    pub fn unwind(
        &mut self,
        time_ns: u64,
        dump: &Rc<Dump>,
        then: &Snapshot,
        objects: &Objects,
    ) -> Option<Stack> {
        let regions = then.regions();
        if self.tables.is_some() {
            regions.values().for_each(|region| self.build(region.object, objects));
        }
        let (stack, waits) = self.walk(dump, regions, objects);
        if waits && self.held.len() < MOST_HELD {
            self.jvms.hurry(dump.key.tgid);
            // Others may be sent, for this one is taken care of.
            let makes_code = regions.values().any(|region| region.object == ObjectId::MEMORY);
            if makes_code && self.held.len() < MOST_HELD / 2 {
                self.recompiled.insert(dump.key.tgid);
            }
            self.held.push((time_ns, then.clone(), Rc::clone(dump)));
            return None;
        }
        Some(stack)
    }

    /// Reads names of scripts' functions that did not come with their stacks, from their processes' memory.
    pub fn name_unknown(&mut self, processes: &Processes, objects: &mut Objects) {
        for key in objects.scripts.take_unknown() {
            if key.runtime == Runtime::Java {
                self.jvms.want(key);
                continue;
            }
            let Some(tables) = &self.tables else { return };
            let Some(regions) = processes.regions(key.tgid) else { continue };
            let mapped = self.mapped_interpreters(regions, objects);
            let Some(memory) = Memory::open(key.tgid) else { continue };
            if let Some(code) = describe(tables, mapped, &key, |addr, bytes| memory.read(addr, bytes)) {
                objects.scripts.learn(key, code);
            }
        }
        self.look_at_jvms(objects);
    }

    /// The stack, and whether it lacks a table that is being built.
    pub(super) fn walk(&self, dump: &Dump, regions: &Regions, objects: &Objects) -> (Stack, bool) {
        let mut stack = Stack {
            key: dump.key,
            truncation: dump.truncation,
            kernel: dump.kernel.clone(),
            user: Vec::new(),
            scripts: Vec::new(),
        };
        // A thread of the kernel's.
        if dump.registers[0] == 0 {
            return (stack, false);
        }
        if regions.is_empty() {
            stack.user.push(dump.registers[0]);
            stack.truncation = Some(Truncation::NoTable);
            return (stack, false);
        }
        let made = self.made.get(&dump.key.tgid).map(Rc::as_ref);
        let mappings = self.mappings(dump.key.tgid, made, regions, objects);
        let mapped = self.mapped_interpreters(regions, objects);
        let is_still = dump.thread_pointer.is_some();
        let mapped = if is_still { mapped } else { mapped.on_stack() };
        let memory = if mapped == Mapped::NONE { None } else { Memory::open(dump.key.tgid) };
        let mapped = if memory.is_some() { mapped } else { Mapped::NONE };
        let read = |addr: u64, bytes: &mut [u8]| {
            if let Some((start, region)) = regions::holding(regions, addr)
                && let Ok(file) = objects.get(region.object).file()
                && file.read_exact_at(bytes, region.file_offset.wrapping_add(addr - start)).is_ok()
            {
                return true;
            }
            memory.as_ref().is_some_and(|memory| memory.read(addr, bytes))
        };
        let (user, mut scripts, truncation) = walk(self.tables.as_ref(), &mappings, mapped, dump, read);
        // Of a thread that has run on since, the interpreter's memory is not that of the stack.
        if is_still && memory.is_some_and(|memory| !memory.holds(dump.start, &dump.memory)) {
            scripts.clear();
        }
        (stack.user, stack.scripts) = (user, scripts);
        let waits = truncation == Some(Truncation::NoTable);
        stack.truncation = if waits { truncation } else { stack.truncation.or(truncation) };
        (stack, waits)
    }
}
