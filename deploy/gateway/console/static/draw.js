// Small charts as SVG. Each has a text beside it that says the same.
const SPACE = "http://www.w3.org/2000/svg";
export function s(name, attributes = {}, ...children) {
  const element = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(key, value);
  element.append(...children.flat(Infinity));
  return element;
}

// An interval on a fixed scale, with its mean as a dot.
export function interval(low, mean, high, { from = 0, to = 1, label, kind = "" }) {
  const at = (value) => 4 + 192 * Math.min(1, Math.max(0, (value - from) / (to - from || 1)));
  return s("svg", { viewBox: "0 0 200 18", role: "img", "aria-label": label, class: kind, preserveAspectRatio: "none" },
    s("line", { class: "axis", x1: 4, x2: 196, y1: 9, y2: 9 }),
    s("line", { class: "bar", x1: at(low), x2: at(high), y1: 9, y2: 9 }),
    s("circle", { class: "dot", cx: at(mean), cy: 9, r: 5 }));
}

// Evidence after each rated user: two curves against the lines where the watch ends.
export function evidence({ after, back, forward, needed_back: needBack, needed_forward: needForward }) {
  const width = 640, height = 300, left = 64, right = 12, top = 14, bottom = 40;
  const last = Math.max(10, after.at(-1) ?? 0);
  const tallest = 1.15 * Math.max(needBack, Number.isFinite(needForward) ? needForward : 0, ...back, ...forward, 1);
  const x = (value) => left + ((width - left - right) * value) / last;
  const y = (value) => height - bottom - ((height - top - bottom) * value) / tallest;
  const path = (values) => values.length ? `M${x(0)},${y(0)}` + values.map((value, index) => `L${x(after[index]).toFixed(1)},${y(value).toFixed(1)}`).join("") : "";
  const marks = [1, 10, 100, 1000, 10000].filter((value) => Math.log(value) <= tallest);
  const end = (values) => values.at(-1) ?? 0;
  const say = `After ${after.at(-1) ?? 0} rated users: evidence that it is worse ${Math.exp(end(back)).toPrecision(3)} of ${Math.exp(needBack).toPrecision(3)} needed; evidence that it is not worse ${Math.exp(end(forward)).toPrecision(3)} of ${Math.exp(needForward).toPrecision(3)} needed.`;
  const boundary = (value, kind) => Number.isFinite(value) ? s("line", { class: `boundary ${kind}`, x1: left, x2: width - right, y1: y(value), y2: y(value) }) : [];
  return s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": say },
    s("line", { class: "axis", x1: left, x2: width - right, y1: y(0), y2: y(0) }),
    s("line", { class: "axis", x1: left, x2: left, y1: top, y2: y(0) }),
    marks.map((value) => [s("line", { class: "axis", x1: left - 4, x2: left, y1: y(Math.log(value)), y2: y(Math.log(value)) }),
      s("text", { x: left - 8, y: y(Math.log(value)) + 4, "text-anchor": "end" }, `×${value}`)]),
    [0, 0.25, 0.5, 0.75, 1].map((part) => s("text", { x: x(part * last), y: height - bottom + 17, "text-anchor": "middle" }, String(Math.round(part * last)))),
    s("text", { x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, "rated users of both arms"),
    boundary(needBack, "back"), boundary(needForward, "forward"),
    s("path", { class: "curve back", d: path(back) }), s("path", { class: "curve forward", d: path(forward) }));
}

// Which version was live when, as one strip.
export function strip(spans, from, to) {
  const x = (at) => (620 * (at - from)) / Math.max(1, to - from);
  return s("svg", { viewBox: "0 0 620 34", role: "img", "aria-label": spans.map((span) => `${span.name} live from ${new Date(span.from).toLocaleString()}`).join("; ") },
    spans.map((span, index) => [
      s("rect", { x: x(span.from), y: 2, width: Math.max(2, x(span.to) - x(span.from) - 1), height: 14, rx: 3, class: "dot", opacity: index % 2 ? 0.55 : 1 }),
      x(span.to) - x(span.from) > 90 ? s("text", { x: x(span.from) + 2, y: 30 }, span.name.slice(0, 14)) : [],
    ]));
}
