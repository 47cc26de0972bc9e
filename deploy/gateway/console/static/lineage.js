import { may, read } from "./api.js";
import { facts, h } from "./dom.js";

const text = (value) => (Array.isArray(value) ? value.map((one) => h("div", {}, String(one))) : typeof value === "object" ? h("pre", {}, JSON.stringify(value, null, 1)) : String(value));

export default {
  name: "lineage", title: "Lineage", seconds: 0,
  load: async (path) => (!may("read") ? { refused: true } : path ? read(`lineage?q=${encodeURIComponent(path)}`).catch((error) => ({ wrong: error.message })) : {}),
  show: (found, again, path) => {
    if (found.refused) return h("p", { class: "note" }, "Lineage shows what people wrote: it needs a key with the scope trusted or admin.");
    const input = h("input", { id: "q", type: "search", value: path, required: true, maxlength: 200, autocomplete: "off" });
    const form = h("form", { role: "search", onsubmit: (event) => { event.preventDefault(); location.hash = `lineage/${encodeURIComponent(input.value.trim())}`; } },
      h("label", { for: "q" }, "Id of an answer, a feedback event, an example, a snapshot, a version or a night"), h("div", { class: "row" }, input, h("button", { type: "submit" }, "Search")));
    return [
      h("section", {}, form),
      found.wrong && h("p", { class: "note", role: "alert" }, found.wrong),
      ...(found.cards ?? []).map((card) => h("section", {}, h("h2", {}, h("span", { class: "tag info" }, card.kind), " ", h("span", { class: "id" }, card.title)), facts(Object.fromEntries(Object.entries(card.facts).map(([name, value]) => [name, text(value)]))),
        card.links.length > 0 && h("p", {}, "Goes on to: ", card.links.map((link) => [h("a", { href: `#lineage/${encodeURIComponent(link)}`, class: "id" }, link), " "])))),
    ];
  },
};
