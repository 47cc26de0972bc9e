// Elements from values: text is always text, never markup.
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value") element.value = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// What it shows stands above it, not in it: a caption is as wide as its table, and would be cut off on a phone. There each
// row is a list of its cells (console.css), which is why roles and names are said once more.
export function table(caption, headers, rows) {
  const shape = (header) => (header.number ? "number" : null);
  const cell = (value, header) => h("td", { role: "cell", class: shape(header), "data-name": header.name }, h("div", {}, value ?? "–"));
  return [h("p", { class: "soft caption" }, caption), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", { role: "table", "aria-label": caption },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, headers.map((header) => h("th", { role: "columnheader", scope: "col", class: shape(header) }, header.name)))),
      h("tbody", { role: "rowgroup" }, rows.map((row) => h("tr", { role: "row" }, row.map((value, index) => cell(value, headers[index])))))))];
}

export function facts(pairs) {
  return h("dl", {}, Object.entries(pairs).filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

export const percent = (value, digits = 0) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)}%`);
export const number = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));
export const id = (value) => h("span", { class: "id" }, value ?? "–");

export function when(text) {
  if (!text) return "–";
  const at = new Date(text);
  return h("time", { datetime: text, title: at.toISOString() }, `${at.toLocaleString()} (${ago(at)})`);
}

export function ago(at, now = new Date()) {
  const seconds = Math.round((now - at) / 1000);
  if (seconds < 0) return "in the future";
  for (const [size, name] of [[86400, "day"], [3600, "hour"], [60, "minute"]]) {
    const count = Math.floor(seconds / size);
    if (count >= 1) return `${count} ${name}${count > 1 ? "s" : ""} ago`;
  }
  return `${seconds} s ago`;
}

export function duration(seconds) {
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${(seconds / 60).toFixed(0)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} days`;
}

let clearing;
export function say(text) {
  const place = document.getElementById("said");
  place.textContent = text;
  clearTimeout(clearing);
  clearing = setTimeout(() => { place.textContent = ""; }, 6000);
}

// A form in a dialog: resolves with its values, or null when it was closed. Escape closes it, focus returns by itself.
export function ask(title, text, fields, action, danger = false) {
  return new Promise((resolve) => {
    const inputs = fields.map((field) => {
      const name = `ask-${field.name}`;
      const input = h(field.long ? "textarea" : "input", { id: name, type: field.long ? null : field.type ?? "text", required: field.required !== false, minlength: field.minlength, maxlength: field.maxlength ?? 500, autocomplete: "off", rows: field.long ? 5 : null, value: field.value ?? "" });
      return { field, input, row: h("div", {}, h("label", { for: name }, field.label), input) };
    });
    const form = h("form", { method: "dialog" }, h("h2", { id: "ask-title" }, title), h("p", {}, text), inputs.map((one) => one.row),
      h("div", { class: "row" }, h("button", { type: "submit", class: danger ? "danger" : null }, action),
        h("button", { type: "button", class: "quiet", onclick: () => dialog.close("") }, "Cancel")));
    let sent = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!form.reportValidity()) return;
      sent = Object.fromEntries(inputs.map(({ field, input }) => [field.name, input.value.trim()]));
      dialog.close("sent");
    });
    const dialog = h("dialog", { "aria-labelledby": "ask-title" }, form);
    dialog.addEventListener("close", () => { dialog.remove(); resolve(sent); });
    document.body.append(dialog);
    dialog.showModal();
  });
}
