// The strip over the picture that shows when time was used, where the recording kept it; dragging on it chooses a
// range. It has a lane for each CPU or each value of another label, or is a heat map of seconds.

import { element } from "./dom.js";
import { hasHeat, heat, lanes, steps } from "./moments.js";
import { clipped, printable } from "./names.js";
import { amount } from "./scale.js";
import { HEAT } from "./view.js";

// What changes the strip; the rest changes how it is looked at.
const DRAWN_BY = ["value", "only", "hide", "focus", "recursion", "unresolved", "lanes"];
const ALONE = 44;
const LANE = 15;
const GUTTER = 96;
const TALLEST = 120;
const CELL = [3, 12];

export class Strip {
  constructor(profile, choose, lay) {
    const { header } = profile;
    this.profile = profile;
    this.choose = choose;
    this.canvas = element("canvas", { tabIndex: 0, role: "img", "aria-label": "Use over time: drag, or arrow keys" });
    this.by = element("select", { title: "What the strip of time shows", onchange: () => lay(this.by.value) });
    this.scroll = element("div", { class: "lanes" }, this.canvas);
    this.box = element("div", { class: "strip", hidden: !header.times }, this.by, this.scroll);
    if (!header.times) {
      return;
    }
    Object.assign(this, steps(header));
    this.by.append(element("option", { value: "" }, "all together"));
    header.labels.keys.forEach((key) => {
      this.by.append(element("option", { value: key }, `by ${printable(key).slice(0, 60)}`));
    });
    if (hasHeat(header)) {
      this.by.append(element("option", { value: HEAT }, HEAT));
    }
    this.installMouse();
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  installMouse() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      this.from = this.at(event);
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointerup", (event) => {
      const range = this.range(event);
      this.from = undefined;
      this.choose(range);
    });
    canvas.addEventListener("pointermove", (event) => {
      canvas.title = this.text(event);
      if (this.from !== undefined) {
        this.draw(this.range(event));
      }
    });
  }

  // The time at a place: of a heat map where the cell begins, else the nearest end of a step.
  at(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const share = Math.max(0, Math.min(1, (event.clientX - bounds.left - this.left) / (bounds.width - this.left)));
    if (!this.heat) {
      return Math.round(share * this.count) * this.step;
    }
    const { columns, rows } = this.heat;
    const up = Math.max(0, Math.min(0.999, (bounds.bottom - event.clientY) / bounds.height));
    return (Math.min(columns - 1, Math.floor(share * columns)) * rows + Math.floor(up * rows)) * this.step;
  }

  // What has been dragged over, or nothing: a click takes the choice back. A cell of a heat map is something.
  range(event) {
    const [from, to] = [this.from, this.at(event)].sort((a, b) => a - b);
    const end = this.heat ? to + this.step : to;
    return from < end ? [from, end] : null;
  }

  text(event) {
    const { view, shown } = this;
    const bounds = this.canvas.getBoundingClientRect();
    const step = Math.floor(((event.clientX - bounds.left - this.left) / (bounds.width - this.left)) * this.count);
    if (this.heat) {
      return amount(this.at(event), "ns");
    }
    const lane = shown[Math.floor((event.clientY - bounds.top) / this.tall)];
    if (!lane || step < 0 || step >= this.count) {
      return "";
    }
    const { unit, name } = this.profile.header.types[view.value];
    const value = amount(lane.bars[step], unit === "count" ? name : unit);
    return `${lane.name === "" ? "" : `${printable(lane.name)}, `}${amount(step * this.step, "ns")}: ${value}`;
  }

  // Arrow keys go from step to step; with Shift the range ends later or earlier.
  key(event) {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (way === undefined) {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
    const { step } = this;
    const time = this.view.time || [-step, 0];
    const [from, to] = event.shiftKey ? [time[0], time[1] + way * step] : time.map((it) => it + way * step);
    if (from >= 0 && from < to && from < this.last) {
      this.choose([from, to]);
    }
  }

  show(view) {
    if (!this.profile.header.times) {
      return;
    }
    this.view = view;
    this.by.value = view.lanes;
    const key = JSON.stringify(DRAWN_BY.map((part) => view[part]));
    if (key !== this.shownKey) {
      this.shownKey = key;
      this.heat = view.lanes === HEAT && hasHeat(this.profile.header) ? heat(this.profile, view) : null;
      this.shown = this.heat ? [] : lanes(this.profile, view, view.lanes);
      this.box.dataset.lanes = this.heat ? HEAT : this.shown.map(({ name }) => name).join(",");
    }
    this.draw(view.time);
  }

  draw(time) {
    const ratio = window.devicePixelRatio || 1;
    const width = this.scroll.clientWidth || 800;
    this.left = this.heat || this.view.lanes === "" ? 0 : GUTTER;
    this.tall = this.view.lanes === "" ? ALONE : LANE;
    const cell = this.heat ? Math.max(CELL[0], Math.min(CELL[1], TALLEST / this.heat.rows)) : 0;
    const height = Math.max(LANE, this.heat ? Math.floor(cell * this.heat.rows) : this.tall * this.shown.length);
    Object.assign(this.canvas, { width: width * ratio, height: height * ratio });
    Object.assign(this.canvas.style, { width: `${width}px`, height: `${height}px` });
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const isIn = (step) => !time || (step * this.step >= time[0] && step * this.step < time[1]);
    if (this.heat) {
      this.drawHeat(context, width, height, isIn);
    } else {
      this.drawLanes(context, width, isIn);
    }
  }

  drawLanes(context, width, isIn) {
    const { shown, left, tall } = this;
    const most = shown.reduce((highest, { bars }) => bars.reduce((a, b) => Math.max(a, b), highest), 0) || 1;
    const wide = (width - left) / this.count;
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    const front = getComputedStyle(this.canvas).color;
    shown.forEach(({ name, bars }, lane) => {
      const bottom = (lane + 1) * tall;
      if (left > 0) {
        context.fillStyle = front;
        context.fillText(clipped(printable(name), 14), 4, bottom - tall / 2);
      }
      bars.forEach((bar, step) => {
        const high = ((tall - 1) * bar) / most;
        context.fillStyle = isIn(step) ? "#3b82c4" : "#9aa4ae";
        context.fillRect(left + step * wide, bottom - high, Math.max(wide - (wide > 3 ? 1 : 0), 0.5), high);
      });
    });
  }

  drawHeat(context, width, height, isIn) {
    const { rows, columns, cells } = this.heat;
    const most = cells.reduce((a, b) => Math.max(a, b), 0) || 1;
    const [wide, tall] = [width / columns, height / rows];
    cells.forEach((value, step) => {
      const [column, row] = [Math.floor(step / rows), step % rows];
      context.fillStyle = isIn(step) ? `rgba(206, 52, 20, ${value / most})` : `rgba(128, 136, 144, ${value / most})`;
      context.fillRect(column * wide, height - (row + 1) * tall, Math.max(wide - (wide > 3 ? 1 : 0), 0.5), tall);
    });
  }
}
