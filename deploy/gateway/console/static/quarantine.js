import { may, read, send } from "./api.js";
import { ask, h, id, say } from "./dom.js";

let code = "";

function content(row) {
  try { return JSON.stringify(JSON.parse(row.content), null, 1); } catch { return row.content; }
}

async function decide(row, decision, again) {
  const fields = [{ name: "note", label: "Note", required: false }];
  if (decision === "accept") fields.push({ name: "correction", label: "Corrected value as JSON, if it needs one", required: false, long: true, maxlength: 20000 });
  const text = decision === "accept" ? "Its events are taken in by the next ingest, as reviewed by you: they pass the checks that held them." : "It stays out of training for good. It remains in the lake's history.";
  const given = await ask(decision === "accept" ? "Accept this row?" : "Drop this row?", text, fields, decision === "accept" ? "Accept" : "Drop", decision === "drop");
  if (!given) return;
  try {
    const correction = given.correction ? JSON.parse(given.correction) : null;
    await send(`quarantine/${encodeURIComponent(row.row_id)}/${decision}`, { note: given.note, correction });
    say(decision === "accept" ? "Accepted: the next ingest takes it in." : "Dropped.");
  } catch (error) {
    say(error.message);
  }
  again();
}

export default {
  name: "quarantine", title: "Quarantine", seconds: 0,
  load: async () => (may("read") ? read(`quarantine?limit=100${code ? `&code=${encodeURIComponent(code)}` : ""}`) : { refused: true }),
  show: (found, again) => {
    if (found.refused) return h("p", { class: "note" }, "What was kept out is shown to keys with the scope trusted or admin.");
    const choose = h("select", { id: "code", onchange: (event) => { code = event.target.value; again(); } }, h("option", { value: "" }, `all (${found.total})`), Object.entries(found.codes).map(([name, count]) => h("option", { value: name, selected: name === code }, `${name} (${count})`)));
    return [
      h("section", {}, h("p", {}, `${found.total} rows wait for a person. Nothing that came in is lost: what is not accepted or merged is here, with its reason.`), h("div", { class: "row" }, h("label", { for: "code" }, "Reason"), choose)),
      ...found.rows.map((row) => h("section", { "aria-label": `row ${row.row_id.slice(0, 12)}` }, h("h2", {}, h("span", { class: "tag warning" }, row.code), " ", id(row.row_id.slice(0, 12))), h("p", {}, row.detail),
        h("p", { class: "small soft" }, `held by ${row.step}, said by ${row.actor ?? "nobody known"} at ${new Date(row.created_at).toLocaleString()}, about `, h("a", { href: `#lineage/${encodeURIComponent(row.subject)}` }, row.subject)),
        h("details", {}, h("summary", {}, "What is held"), h("pre", {}, content(row))),
        may("admin") ? h("div", { class: "row" }, h("button", { type: "button", onclick: () => decide(row, "accept", again) }, "Accept"), h("button", { type: "button", class: "danger", onclick: () => decide(row, "drop", again) }, "Drop")) : h("p", { class: "small soft" }, "Deciding needs an admin key."))),
    ];
  },
};
