// A browser for tests: Debian's Chromium, headless, by its own protocol over a pipe. Nothing is installed for it.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PATIENCE_MS = 60000;

export class Browser {
  static async open(program = process.env.CHROMIUM || "chromium", more = []) {
    const browser = new Browser();
    browser.home = mkdtempSync(join(tmpdir(), "profiler-chromium-"));
    const options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"];
    const own = [`--user-data-dir=${browser.home}`, "--remote-debugging-pipe", "--no-first-run", "--window-size=1280,800"];
    browser.process = spawn(program, [...options, ...own, ...more, "about:blank"], {
      stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"],
      env: Object.assign({}, process.env, { HOME: browser.home }),
    });
    browser.said = "";
    browser.process.stderr.on("data", (data) => {
      browser.said = (browser.said + data).slice(-4000);
    });
    browser.process.on("error", (error) => browser.fail(error));
    browser.process.on("exit", (code) => browser.fail(new Error(`the browser ended (${code}): ${browser.said}`)));
    browser.answers = new Map();
    browser.last = 0;
    let text = "";
    browser.process.stdio[4].on("data", (data) => {
      text += data;
      const messages = text.split("\0");
      text = messages.pop();
      messages.forEach((message) => browser.take(JSON.parse(message)));
    });
    browser.process.stdio[3].on("error", () => {});
    const { targetInfos } = await browser.send("Target.getTargets");
    const { targetId } = targetInfos.find((target) => target.type === "page");
    browser.target = targetId;
    const { sessionId } = await browser.send("Target.attachToTarget", { targetId, flatten: true });
    browser.session = sessionId;
    await browser.page("Page.enable");
    await browser.page("Runtime.enable");
    await browser.size(1280, 800);
    return browser;
  }

  fail(error) {
    this.failure = error;
    if (this.answers) {
      this.answers.forEach(({ reject }) => reject(error));
      this.answers.clear();
    }
  }

  take(message) {
    if (message.method === "Runtime.exceptionThrown") {
      this.errors.push(JSON.stringify(message.params.exceptionDetails).slice(0, 600));
    }
    if (message.method === "Page.loadEventFired" && this.loaded) {
      this.loaded();
    }
    const answer = this.answers.get(message.id);
    if (answer) {
      this.answers.delete(message.id);
      if (message.error) {
        answer.reject(new Error(JSON.stringify(message.error)));
      } else {
        answer.resolve(message.result);
      }
    }
  }

  send(method, params = {}, sessionId = undefined) {
    return new Promise((resolve, reject) => {
      if (this.failure) {
        reject(this.failure);
        return;
      }
      this.last += 1;
      this.answers.set(this.last, { resolve, reject });
      this.process.stdio[3].write(`${JSON.stringify({ id: this.last, method, params, sessionId })}\0`);
    });
  }

  page(method, params) {
    return this.send(method, params, this.session);
  }

  size(width, height) {
    return this.page("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
  }

  dark(isDark) {
    const features = [{ name: "prefers-color-scheme", value: isDark ? "dark" : "light" }];
    return this.page("Emulation.setEmulatedMedia", { features });
  }

  // Opens a page and waits for `condition`, an expression, to hold.
  async go(url, condition = "document.querySelector('.viewer') !== null") {
    this.errors = [];
    // Another fragment alone would not load it anew.
    await this.page("Page.navigate", { url: "about:blank" });
    const loaded = new Promise((resolve) => {
      this.loaded = resolve;
    });
    await this.page("Page.navigate", { url });
    await loaded;
    await this.until(condition);
  }

  async run(expression) {
    const parameters = { expression, returnByValue: true, awaitPromise: true, userGesture: true };
    const { result, exceptionDetails } = await this.page("Runtime.evaluate", parameters);
    if (exceptionDetails) {
      throw new Error(`${expression}: ${JSON.stringify(exceptionDetails).slice(0, 800)}`);
    }
    return result.value;
  }

  async until(condition) {
    const end = Date.now() + PATIENCE_MS;
    const guarded = `(() => { try { return ${condition}; } catch { return false; } })()`;
    while (!(await this.run(guarded))) {
      if (Date.now() > end) {
        throw new Error(`${condition} does not come true; ${this.errors.join("; ")}`);
      }
      await new Promise((resolve) => {
        setTimeout(resolve, 20);
      });
    }
  }

  async mouse(type, x, y, more = {}) {
    await this.page("Input.dispatchMouseEvent", Object.assign({ type, x, y }, more));
  }

  async click(x, y, modifiers = 0) {
    await this.mouse("mouseMoved", x, y, { modifiers });
    const press = { button: "left", clickCount: 1, modifiers };
    await this.mouse("mousePressed", x, y, press);
    await this.mouse("mouseReleased", x, y, press);
  }

  // A key by its name, or one character.
  async key(key, modifiers = 0) {
    const codes = { Enter: 13, Escape: 27, ArrowLeft: 37, ArrowUp: 38, ArrowRight: 39, ArrowDown: 40, Tab: 9 };
    const text = key === "Enter" ? "\r" : key.length === 1 ? key : undefined;
    const code = codes[key] || key.toUpperCase().charCodeAt(0);
    const event = { key, modifiers, windowsVirtualKeyCode: code, text };
    await this.page("Input.dispatchKeyEvent", Object.assign({ type: "keyDown" }, event));
    await this.page("Input.dispatchKeyEvent", Object.assign({ type: "keyUp" }, event));
  }

  async type(text) {
    await this.page("Input.insertText", { text });
  }

  async screenshot() {
    const { data } = await this.page("Page.captureScreenshot", { format: "png" });
    return Buffer.from(data, "base64");
  }

  async pdf() {
    const { data } = await this.page("Page.printToPDF", { printBackground: true, preferCSSPageSize: true });
    return Buffer.from(data, "base64");
  }

  async close() {
    this.process.removeAllListeners("exit");
    const ended = new Promise((resolve) => {
      this.process.on("exit", resolve);
    });
    this.process.kill("SIGKILL");
    await ended;
    rmSync(this.home, { recursive: true, force: true, maxRetries: 5 });
  }
}
