// Sequences that share their beginnings, each beginning stored once. The same idea as in src/model/prefix_tree.rs,
// which says why: the first child of a node nearly always follows it, and only the others are in a hash table.

const FIRST_CAPACITY = 1024;

export class PrefixTree {
  constructor() {
    this.parent = new Int32Array(FIRST_CAPACITY);
    this.element = new Int32Array(FIRST_CAPACITY);
    this.element[0] = -1;
    // Node 0 is the empty sequence.
    this.length = 1;
    this.slots = new Int32Array(FIRST_CAPACITY);
    this.used = 0;
  }

  // The sequence of `node` with `element` behind it, which is added if it is new.
  child(node, element) {
    const next = node + 1;
    if (next === this.length) {
      return this.push(node, element);
    }
    if (this.parent[next] === node && this.element[next] === element) {
      return next;
    }
    const mask = this.slots.length - 1;
    let slot = hashOf(node, element) & mask;
    for (let known = this.slots[slot]; known !== 0; known = this.slots[slot]) {
      if (this.parent[known] === node && this.element[known] === element) {
        return known;
      }
      slot = (slot + 1) & mask;
    }
    const child = this.push(node, element);
    this.slots[slot] = child;
    this.used += 1;
    if (2 * this.used > this.slots.length) {
      this.grow();
    }
    return child;
  }

  push(parent, element) {
    const node = this.length;
    if (node === this.parent.length) {
      this.parent = longer(this.parent);
      this.element = longer(this.element);
    }
    this.parent[node] = parent;
    this.element[node] = element;
    this.length = node + 1;
    return node;
  }

  grow() {
    const old = this.slots;
    this.slots = new Int32Array(2 * old.length);
    const mask = this.slots.length - 1;
    for (const node of old) {
      if (node !== 0) {
        let slot = hashOf(this.parent[node], this.element[node]) & mask;
        while (this.slots[slot] !== 0) {
          slot = (slot + 1) & mask;
        }
        this.slots[slot] = node;
      }
    }
  }
}

export function longer(array) {
  const copy = new array.constructor(2 * array.length);
  copy.set(array);
  return copy;
}

function hashOf(node, element) {
  let mixed = Math.imul(node, 0x9e3779b1) ^ Math.imul(element, 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x2c1b3c6d);
  return mixed ^ (mixed >>> 13);
}
