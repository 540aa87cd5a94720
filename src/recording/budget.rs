//! How much a recorder may hold of what it has counted.
//!
//! What is counted grows with what is distinct in it: stacks, and the labels of the processes and threads that
//! had them. A machine that makes new ones for a week would take all memory. So there is a budget, and what it
//! is short of is told apart less well, but never left out: from half of it on, new samples have no process id,
//! thread id or moment; when it is used up, what is known already is counted as before, and everything else
//! under one frame that says so. All sums still close, since only the stack of a sample is given up.
//!
//! Held bytes are counted by the tables' own sizes, not asked of the allocator. They are looked at after
//! each interval: in one, no more comes than the rings hold.

/// What is given up for want of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Nothing.
    #[default]
    None,
    /// What tells processes of one name apart, and moments.
    High,
    /// Stacks, where they are not known already.
    Full,
}

/// The budget of a recorder, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget(pub u64);

impl Default for Budget {
    fn default() -> Self {
        Self(256 << 20)
    }
}

impl Budget {
    /// What is to be given up where so many bytes are held.
    pub fn pressure(self, held: u64) -> Pressure {
        match held {
            held if held >= self.0 => Pressure::Full,
            held if held >= self.0 / 2 => Pressure::High,
            _ => Pressure::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_rises_with_what_is_held() {
        let budget = Budget(1000);
        let at = |held| budget.pressure(held);
        assert_eq!([at(0), at(499)], [Pressure::None; 2]);
        assert_eq!([at(500), at(999)], [Pressure::High; 2]);
        assert_eq!([at(1000), at(u64::MAX)], [Pressure::Full; 2]);
    }
}
