// What changed from one profile to another, and whether that may be chance: as src/viewing/statistics.rs has it.
// Widths are of what was before and after together, so that what vanished is there too.

import { css, darkened, mixed } from "./colors.js";
import { amount, percent } from "./scale.js";

const MORE = [255, 128, 104];
const LESS = [112, 170, 255];
const NEITHER = [240, 236, 240];
const CHANCE = [214, 214, 216];
// Half an interval of 95 %, in standard deviations.
const ONE = 1.96;

// The point below which a standard normal variable lies with a probability from one half to 1: Abramowitz and
// Stegun 26.2.23.
export function quantile(probability) {
  const t = Math.sqrt(-2 * Math.log(1 - probability));
  const above = 2.515517 + t * (0.802853 + t * 0.010328);
  const below = 1 + t * (1.432788 + t * (0.189269 + t * 0.001308));
  return t - above / below;
}

// A change of what is together `both`, of which `after` is after, in a comparison whose sums are `all`. Without
// `each`, what a sample adds before and after, nobody knows how sure it is.
export function changeOf({ each, factor, absolute }, all, both, after) {
  const before = both - after;
  // What was before has been multiplied, and may be off by a rounding.
  const change = Math.abs(after - before) > 1e-9 * both ? after - before : 0;
  if (!each) {
    return { before, after, change, deviation: null };
  }
  const variance = (value, sum, one) => {
    const [hits, count] = [value / one, Math.max(1, sum / one)];
    const p = (hits + 1) / (count + 2);
    return absolute ? Math.max(1, hits) * one * one : ((p * (1 - p)) / count) * sum * sum;
  };
  const deviation = Math.sqrt(variance(before, all[0], each[0] * factor) + variance(after, all[1], each[1]));
  return { before, after, change, deviation };
}

// Whether a change is none by chance, where so many are looked at.
export function isSure({ change, deviation }, compared) {
  return deviation === null || Math.abs(change) > quantile(1 - 0.05 / 2 / Math.max(1, compared)) * deviation;
}

// Changes of the nodes of a tree.
export class Changes {
  constructor({ comparison }, tree) {
    this.comparison = comparison;
    this.tree = tree;
    // Callers and callees of one function are compared as parts of all.
    const { total, afterTotal } = tree.partOf || tree;
    this.all = [total[0] - afterTotal[0], afterTotal[0]];
    this.whole = Math.max(...this.all.map(Math.abs));
  }

  // Those of a tree; none where nothing is compared.
  static of(profile, tree) {
    if (tree.after !== null && !tree.changes) {
      tree.changes = new Changes(profile.header, tree);
    }
    return tree.changes || null;
  }

  // Of what is together `both`.
  of(both, after) {
    return changeOf(this.comparison, this.all, both, after);
  }

  total(node) {
    return this.of(this.tree.total[node], this.tree.afterTotal[node]);
  }

  own(node) {
    return this.of(this.tree.own[node], this.tree.after[node]);
  }

  // Red is more than before, blue less, the stronger the greater it is for the frame; grey may be chance.
  color(node, isDark) {
    const it = this.total(node);
    const suited = (color) => css(isDark ? darkened(color) : color);
    if (!isSure(it, this.tree.length)) {
      return suited(CHANCE);
    }
    const share = it.change / (it.before + it.after || 1);
    return suited(mixed(NEITHER, share < 0 ? LESS : MORE, Math.round(255 * Math.sqrt(Math.min(1, Math.abs(share))))));
  }

  legend(isDark) {
    const suited = (color) => css(isDark ? darkened(color) : color);
    const entries = [
      ["more than before", MORE],
      ["less", LESS],
      ["may be chance", CHANCE],
    ];
    return entries.map(([name, color]) => ({ name, color: suited(color) }));
  }

  // Lines of a tooltip. `own` names the values of the tree that are a frame's self; null for one that has none.
  details(node, unit, own) {
    const lines = [];
    const told = [["total", this.total(node)]];
    if (own !== null) {
      told.push(["self", own === "total" ? this.total(node) : this.own(node)]);
    }
    for (const [word, it] of told) {
      lines.push([word, this.values(it, unit)]);
      lines.push(["", [this.share(it), this.margin(it)].join(" ").trim()]);
    }
    if (!isSure(this.total(node), this.tree.length)) {
      lines.push(["", "may be chance"]);
    }
    return lines;
  }

  // What was measured before and after, and which part of the whole that is.
  values({ before, after }, unit) {
    const part = (value, measured) => `${amount(measured, unit)} (${percent(value, this.whole)})`;
    return `${part(before, before / this.comparison.factor)} → ${part(after, after)}`;
  }

  // A change as a part of the whole.
  share({ change }) {
    return `${change > 0 ? "+" : ""}${percent(change, this.whole)}`;
  }

  // Half the interval of 95 % of it.
  margin({ deviation }) {
    return deviation === null ? "" : `± ${percent(ONE * deviation, this.whole)}`;
  }
}
