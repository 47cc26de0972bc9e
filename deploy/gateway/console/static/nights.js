import { me, read } from "./api.js";
import { duration, facts, h, id, number, percent, table, when } from "./dom.js";
import { interval } from "./draw.js";

const TONE = { promote: "good", reject: "bad", inconclusive: "warning" };
const link = (night) => h("a", { href: `#nights/${night}`, class: "id" }, night);

const bars = (list) => list.map((one) => h("div", {}, h("label", { for: `bar-${one.what}` }, `${one.what}: ${one.done} of ${one.total}${one.loss === undefined ? "" : `, loss ${number(one.loss)}`}`), h("progress", { id: `bar-${one.what}`, max: one.total || 1, value: one.done })));

function steps(night) {
  const known = night.seconds ?? {};
  return h("p", { class: "small" }, "Done: ", night.steps.map((name) => ((known[name] ?? 0) < 0.1 ? name : `${name} (${duration(known[name])})`)).join(", ") || "nothing yet");
}

function overview(found) {
  const { tonight } = found;
  return [
    h("section", {}, h("h2", {}, "Tonight"), tonight ? [h("p", {}, link(tonight.night_id), ` began `, when(tonight.started_at), tonight.attempts > 1 && `, taken up ${tonight.attempts - 1} times`), steps(tonight), bars(tonight.progress)] : h("p", {}, "No night runs. Start one in Prefect (deployment nightly), or with `ratchet run nightly`.")),
    h("section", {}, h("h2", {}, "Nights"), found.nights.length ? table("The last nights, newest first", [{ name: "night" }, { name: "decision" }, { name: "outcome" }], found.nights.map((night) => [h("span", {}, link(night.night_id), h("div", { class: "small soft" }, when(night.started_at))), h("span", { class: `tag ${TONE[night.decision] ?? (night.state === "failed" ? "bad" : "info")}` }, night.decision ?? night.state), night.outcome || "–"])) : h("p", {}, "None yet.")),
  ];
}

function scorecard(card, verdict) {
  const primary = verdict?.primary;
  const metrics = [...card.metrics].sort((one, other) => (other.name === primary) - (one.name === primary));
  const of = (version, metric) => card.estimates.find((one) => one.version === version && one.metric === metric);
  const said = (value, metric) => (metric.binary ? percent(value, 0) : number(value));
  const rows = card.versions.map((version) => [
    h("span", {}, version.label, " ", h("span", { class: "tag info" }, version.role), h("div", { class: "small id" }, version.version), version.error && h("div", { class: "small bad" }, version.error)),
    ...metrics.map((metric) => { const one = of(version.version, metric.name); return one ? h("span", {}, said(one.mean, metric), h("div", { class: "small soft" }, `${said(one.low, metric)} to ${said(one.high, metric)}`)) : "–"; }),
  ]);
  return h("section", {}, h("h2", {}, "Scorecard"), table(`All versions on the same ${card.items} items, means with 95% intervals (↑ more is better, ↓ less is better)`, [{ name: "version" }, ...metrics.map((metric) => ({ name: `${metric.name}${metric.direction === "lower" ? " ↓" : metric.direction === "higher" ? " ↑" : ""}`, number: true }))], rows));
}

function decided(verdict) {
  const all = verdict.challengers.filter((one) => one.gain !== null);
  const bound = Math.max(0.01, ...all.flatMap((one) => [Math.abs(one.gain_low), Math.abs(one.gain_high)]));
  return h("section", {}, h("h2", {}, "Verdict: ", h("span", { class: `tag ${TONE[verdict.decision]}` }, verdict.decision)), h("ul", {}, verdict.reasons.map((reason) => h("li", {}, reason))),
    table(`Gain over the champion on ${verdict.primary}; p after Holm over all challengers, ${verdict.alpha.toPrecision(2)} needed`, [{ name: "challenger" }, { name: "decision" }, { name: "gain" }, { name: "p", number: true }], verdict.challengers.map((one) => [h("span", {}, one.label, h("div", { class: "small id" }, one.version)), h("span", { class: `tag ${TONE[one.decision]}` }, one.decision),
      one.gain === null ? "–" : h("div", {}, `${number(one.gain)} (${number(one.gain_low)} to ${number(one.gain_high)})`, interval(one.gain_low, one.gain, one.gain_high, { from: -bound, to: bound, label: "gain with its 95% interval; the middle is no change" })), one.adjusted_p.toPrecision(2)])));
}

function examples(found, card) {
  if (found === null) return h("p", { class: "note" }, "Examples are shown to keys with the scope trusted or admin.");
  if (!found.length) return null;
  const name = (version) => card?.versions.find((one) => one.version === version)?.label ?? version;
  return h("section", {}, h("h2", {}, "Side by side"), h("p", { class: "small soft" }, "Items that people may see: validation and retired ones, never the gate's."), found.slice(0, 20).map((one) => h("details", {}, h("summary", {}, String(one.question).slice(0, 110)),
    h("pre", {}, one.question), one.reference && h("div", { class: "card" }, h("h3", {}, "Reference"), h("pre", {}, one.reference)),
    h("div", { class: "answers" }, Object.entries(one.answers).map(([version, answer]) => h("div", { class: "card" }, h("h3", {}, name(version)), h("pre", {}, answer)))))));
}

function one(night) {
  return [
    h("p", {}, h("a", { href: "#nights" }, "All nights")),
    h("section", {}, h("h2", {}, night.night_id), h("p", {}, night.outcome || night.state), facts({ began: when(night.started_at), ended: night.finished_at && when(night.finished_at), snapshot: night.snapshot && h("a", { href: `#lineage/${night.snapshot}`, class: "id" }, night.snapshot), tries: String(night.attempts), asked: night.request.note, Prefect: night.flow_runs.length && me.links.Prefect ? night.flow_runs.map((run) => h("div", {}, h("a", { href: `${me.links.Prefect}/runs/flow-run/${run}`, rel: "noreferrer" }, run))) : null }), steps(night), bars(night.progress)),
    night.verdict && decided(night.verdict),
    night.scorecard && scorecard(night.scorecard, night.verdict),
    examples(night.examples, night.scorecard),
    night.plan?.left_out?.length ? h("section", {}, h("h2", {}, "Not trained"), h("ul", {}, night.plan.left_out.map((left) => h("li", {}, `${left.recipe}: ${left.reason}`)))) : null,
  ];
}

export default {
  name: "nights", title: "Nights", seconds: 4,
  load: (path) => (path ? read(`nights/${encodeURIComponent(path)}`) : read("nights")),
  show: (found, again, path) => (path ? one(found) : overview(found)),
};
