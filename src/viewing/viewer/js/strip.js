// The strip over the picture that shows when time was used, where the recording kept it; dragging on it chooses a
// range.

import { element } from "./dom.js";
import { amount } from "./scale.js";

const HEIGHT = 44;

export class Strip {
  constructor(profile, choose) {
    this.profile = profile;
    this.choose = choose;
    this.canvas = element("canvas", {});
    this.box = element("div", { class: "strip", hidden: !profile.header.times }, this.canvas);
    if (!profile.header.times) {
      return;
    }
    const { times, interval } = profile.header;
    this.last = times.reduce((last, time) => Math.max(last, time === null ? 0 : time), 0) + interval;
    const at = (event) => {
      const bounds = this.canvas.getBoundingClientRect();
      const share = Math.max(0, Math.min(1, (event.clientX - bounds.left) / bounds.width));
      return Math.round((share * this.last) / interval) * interval;
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      this.from = at(event);
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointerup", (event) => {
      const range = [Math.min(this.from, at(event)), Math.max(this.from, at(event))];
      this.choose(range[0] < range[1] ? range : null);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      this.canvas.title = amount(at(event), "ns");
    });
  }

  show(view) {
    if (!this.profile.header.times) {
      return;
    }
    const { times, interval } = this.profile.header;
    const { labels, values } = this.profile.rows;
    const bars = new Float64Array(Math.round(this.last / interval) + 1);
    labels.forEach((set, row) => {
      if (times[set] !== null) {
        bars[Math.floor(times[set] / interval)] += Math.abs(values[view.value][row]);
      }
    });
    const width = this.box.clientWidth || 800;
    this.canvas.width = width;
    this.canvas.height = HEIGHT;
    const context = this.canvas.getContext("2d");
    const most = bars.reduce((a, b) => Math.max(a, b), 0) || 1;
    const step = width / (bars.length - 1 || 1);
    bars.forEach((bar, i) => {
      const isIn = !view.time || (i * interval >= view.time[0] && i * interval < view.time[1]);
      context.fillStyle = isIn ? "#3b82c4" : "#9aa4ae";
      context.fillRect(i * step, HEIGHT - (HEIGHT * bar) / most, Math.max(step - 1, 0.5), HEIGHT);
    });
  }
}
