// Search: plain text in names, ignoring case, or `/re/` for a regular expression.

// A test of names, null for an empty search, or an error.
export function matcher(text) {
  if (text === "") {
    return null;
  }
  if (text.length > 1 && text.startsWith("/") && text.endsWith("/")) {
    const pattern = new RegExp(text.slice(1, -1), "i");
    return (name) => pattern.test(name);
  }
  const wanted = text.toLowerCase();
  return (name) => name.toLowerCase().includes(wanted);
}

// Which frames match, by frame.
export function matchingFrames(profile, test) {
  const byName = profile.names.map((name) => test(name));
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
