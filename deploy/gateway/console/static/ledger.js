import { may, read, send } from "./api.js";
import { ask, h, id, say, table, when } from "./dom.js";

async function takeBack(found, again, to = null) {
  const what = found.canary && !to ? `the canary ${found.canary}` : `the champion ${found.champion}`;
  const target = to ?? (found.canary ? found.champion : "the last good version before it");
  const given = await ask("Roll back?", `This takes back ${what}. ${target} answers everybody within a second, the version taken back is barred, and nights release nothing until somebody resumes.`, [{ name: "reason", label: "Reason (it stands in the ledger for ever)", minlength: 3 }, { name: "word", label: "Type ROLL BACK to confirm" }], "Roll back", true);
  if (!given) return;
  if (given.word !== "ROLL BACK") { say("Not confirmed: nothing was changed."); return; }
  try {
    const line = await send("rollback", { reason: given.reason, to, expected_seq: found.seq });
    say(`${line.version} was taken back; ${line.previous} is live (line ${line.seq}).`);
  } catch (error) {
    say(error.message);
  }
  again();
}

async function goOn(again) {
  const given = await ask("Let nights release again?", "Say what was found and mended.", [{ name: "reason", label: "Reason", minlength: 3 }], "Resume");
  if (!given) return;
  try { await send("resume", given); say("Nights may release again."); } catch (error) { say(error.message); }
  again();
}

export default {
  name: "ledger", title: "Ledger", seconds: 5,
  load: () => read("ledger"),
  show: (found, again) => [
    h("section", {}, h("h2", {}, "By hand"), may("admin")
      ? h("div", { class: "row" }, h("button", { type: "button", class: "danger", disabled: !found.can_roll_back, onclick: () => takeBack(found, again) }, found.canary ? "Roll back the canary" : "Roll back the champion"),
        found.canary && found.champion !== found.base && h("button", { type: "button", class: "danger", onclick: () => takeBack(found, again, found.previous ?? found.base) }, "Roll back the champion"),
        found.paused && h("button", { type: "button", onclick: () => goOn(again) }, "Let nights release again"), !found.can_roll_back && h("span", { class: "soft" }, "The base model is live: there is nothing behind it."))
      : h("p", {}, "Rolling back needs an admin key.")),
    h("section", {}, h("h2", {}, "Ledger"), table("Every release decision, newest first; lines are never changed", [{ name: "line", number: true }, { name: "what" }, { name: "version" }, { name: "why" }], found.lines.map((line) => [String(line.seq), h("span", {}, h("span", { class: `tag ${{ champion: "good", rolled_back: "bad", barred: "bad" }[line.action] ?? "info"}` }, line.action.replace("_", " ")), line.share !== null && ` ${Math.round(100 * line.share)}%`, h("div", { class: "small soft" }, when(line.at))),
      h("span", {}, h("a", { href: `#lineage/${encodeURIComponent(line.version)}`, class: "id" }, line.version), line.previous && h("div", { class: "small" }, line.action === "rolled_back" ? "now live: " : "before: ", id(line.previous))), h("span", {}, line.reason, h("div", { class: "small soft" }, `by ${line.actor}`))]))),
  ],
};
