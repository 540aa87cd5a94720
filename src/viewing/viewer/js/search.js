// Search: plain text in names, ignoring case, or `/re/` for a regular expression, which may have flags as in `/re/s`.
//
// There are expressions that a browser would try on one name for longer than anybody waits, and nothing interrupts it.
// So they are tried in another thread, which is ended when it takes too long.

// Milliseconds after which that is given up.
const LONGEST = 2000;
const EXPRESSION = /^\/([^]+)\/([dgimsuvy]*)$/;

// The expression in a search, or null where it is plain text: a path ends in no flags.
function expressionIn(text) {
  const found = EXPRESSION.exec(text);
  if (found === null || new Set(found[2]).size < found[2].length) {
    return null;
  }
  // Case is ignored anyway, and where the last match was is not remembered.
  return { source: found[1], flags: `${found[2].replace(/[gimy]/g, "")}i${found[2].includes("m") ? "m" : ""}` };
}

// What to search for to find a name as it stands.
export function literally(name) {
  return expressionIn(name) === null ? name : `/${name.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")}/`;
}

// A test of names, null for an empty search, or an error.
export function matcher(text) {
  if (text === "") {
    return null;
  }
  const expression = expressionIn(text);
  if (expression !== null) {
    const pattern = new RegExp(expression.source, expression.flags);
    return (name) => pattern.test(name);
  }
  const wanted = text.toLowerCase();
  return (name) => name.toLowerCase().includes(wanted);
}

// What the other thread does: it is given names, some more of them and an expression, and tells which names match.
function inOtherThread() {
  const names = [];
  self.onmessage = ({ data: { more, source, flags, key } }) => {
    more.forEach((name) => names.push(name));
    const pattern = new RegExp(source, flags);
    self.postMessage({ key, matching: names.map((name) => pattern.test(name)) });
  };
}

export class Searcher {
  // `found` is called when another thread has come to an end.
  constructor(found) {
    this.found = found;
    this.thread = null;
    // What is looked for, until it is known.
    this.asked = null;
    // The last expression with what was found.
    this.known = { key: null };
  }

  get isBusy() {
    return this.asked !== null;
  }

  // Which names match; null for an empty search, and while that is not known. An error where there is none to know.
  matching(names, text) {
    const test = matcher(text);
    const expression = expressionIn(text);
    if (expression === null || typeof Worker === "undefined") {
      this.stop();
      return test && names.map(test);
    }
    const key = `${names.length} ${text}`;
    if (this.known.key === key) {
      if (this.known.error) {
        throw this.known.error;
      }
      return this.known.matching;
    }
    if (this.asked !== key) {
      this.ask(names, expression, key);
    }
    return null;
  }

  ask(names, { source, flags }, key) {
    this.stop();
    if (this.thread === null) {
      const script = new Blob([`(${inOtherThread})()`], { type: "text/javascript" });
      this.address = URL.createObjectURL(script);
      this.thread = new Worker(this.address);
      this.sent = 0;
      this.thread.onmessage = ({ data }) => this.answer(data);
      this.thread.onerror = (event) => {
        event.preventDefault();
        this.giveUp(this.asked, `the search failed: ${event.message}`);
      };
    }
    this.asked = key;
    this.thread.postMessage({ more: names.slice(this.sent), source, flags, key });
    this.sent = names.length;
    const why = `given up after ${LONGEST / 1000} s: it takes too long on some name`;
    this.timer = setTimeout(() => this.giveUp(this.asked, why), LONGEST);
  }

  answer({ key, matching }) {
    if (key === this.asked) {
      this.asked = null;
      clearTimeout(this.timer);
      this.known = { key, matching };
      this.found();
    }
  }

  giveUp(key, why) {
    this.stop();
    this.known = { key, error: new Error(why) };
    this.found();
  }

  // Ends what is looked for in vain.
  stop() {
    clearTimeout(this.timer);
    if (this.asked !== null) {
      this.asked = null;
      this.thread.terminate();
      URL.revokeObjectURL(this.address);
      this.thread = null;
    }
  }
}

// Which frames match, by frame, where it is known which names do.
export function matchingFrames(profile, byName) {
  return profile.nameOf.map((id) => byName[id]);
}

// The nodes that match in preorder, and how much of the tree and of the node that is zoomed on they are: what is
// below a match counts with it, once.
export function matches(tree, isMatch, zoom) {
  const nodes = [];
  let [all, zoomed, until] = [0, 0, 0];
  const end = tree.end[zoom];
  for (let node = 1; node < tree.length; node += 1) {
    if (!isMatch[tree.frame[node]]) {
      continue;
    }
    nodes.push(node);
    if (node >= until) {
      until = tree.end[node];
      all += tree.width[node];
      if (node < end && until > zoom) {
        // A match above the zoom holds all of it.
        zoomed += node <= zoom ? tree.width[zoom] : tree.width[node];
      }
    } else if (node > zoom && node < end && until <= zoom) {
      zoomed += tree.width[node];
    }
  }
  return { nodes, all, zoomed };
}
