import { read } from "./api.js";
import { ago, facts, h, id, number, percent, table, when } from "./dom.js";
import { interval, strip } from "./draw.js";

const WORDS = { baseline: "base model serves", inherited: "takes over the shared champion", held: "night held", gated: "passed the gate", canary: "canary", champion: "became champion", superseded: "holdback ended", withdrawn: "canary withdrawn", rolled_back: "taken back", barred: "barred", unbarred: "bar lifted", paused: "releases paused", resumed: "releases resumed" };
const TONE = { champion: "good", rolled_back: "bad", barred: "bad", held: "warning", withdrawn: "warning", paused: "warning" };

function standing(live) {
  const silent = !live.controller_seen || new Date(live.now) - new Date(live.controller_seen) > 60000;
  return [
    silent && h("p", { class: "note bad", role: "alert" }, "The controller is silent: canaries get no traffic until it is back. Start it with `ratchet up`."),
    live.paused && h("p", { class: "note" }, "Releases by nights are paused. The ledger page lets them go on."),
    h("section", {}, h("h2", {}, "Live now"), h("p", { class: "big" }, id(live.champion)), facts({
      since: when(live.since), "decided by": live.by, because: live.why, before: live.previous && id(live.previous),
      canary: live.canary && h("span", {}, id(live.canary), ` gets ${percent(live.canary_share)} of new users. ${live.judged?.reason ?? ""} `, h("a", { href: "#canary" }, "Watch it")),
      "held back": live.holdback && h("span", {}, id(live.holdback), " keeps a share of new users for comparison"),
      barred: Object.keys(live.barred).length ? Object.entries(live.barred).map(([name, why]) => h("div", {}, id(name), ` ${why}`)) : null,
      controller: live.controller_seen ? `seen ${ago(new Date(live.controller_seen), new Date(live.now))}` : "never seen",
    })),
  ];
}

const padded = (low, high) => ({ from: low - 0.1 * (high - low || 1), to: high + 0.1 * (high - low || 1) });

function quality(found) {
  const measured = found.versions.filter((one) => one.measured);
  const bounds = measured.flatMap((one) => [one.measured.low, one.measured.high]);
  const shares = measured.every((one) => one.measured.binary);
  const scale = shares ? { from: 0, to: 1 } : padded(Math.min(...bounds), Math.max(...bounds));
  const said = (value, info) => (info.binary ? percent(value, 0) : number(value));
  const rows = found.versions.map((one) => [
    h("span", {}, id(one.version), one.role && [" ", h("span", { class: `tag ${one.role === "barred" ? "bad" : "good"}` }, one.role)], one.measured?.label && h("div", { class: "small soft" }, one.measured.label)),
    one.measured && h("div", {}, `${said(one.measured.mean, one.measured)} (${said(one.measured.low, one.measured)} to ${said(one.measured.high, one.measured)}) on ${one.measured.units} units`,
      interval(one.measured.low, one.measured.mean, one.measured.high, { ...scale, label: `${one.measured.metric} with its 95% interval` }), h("div", { class: "small soft" }, one.measured.metric)),
    one.thumbs && h("div", {}, `${percent(one.thumbs.mean)} (${percent(one.thumbs.low)} to ${percent(one.thumbs.high)}) of ${one.thumbs.rated} users`,
      interval(one.thumbs.low, one.thumbs.mean, one.thumbs.high, { label: "satisfied users with the 95% interval", kind: "thumbs" })),
  ]);
  return h("section", {}, h("h2", {}, "Accuracy and thumbs"), rows.length
    ? table(`Each version's latest score on the gate's items, and users who were satisfied in ${found.days} days, with 95% intervals. Compare arms on the canary page, not thumbs of different days.`, [{ name: "version" }, { name: "accuracy" }, { name: "satisfied" }], rows)
    : h("p", {}, "Nothing was measured or rated yet."));
}

function spans(lines, now) {
  const found = [];
  for (const line of [...lines].reverse()) {
    const name = line.action === "rolled_back" ? line.previous : ["baseline", "champion"].includes(line.action) ? line.version : null;
    if (!name || found.at(-1)?.name === name) continue;
    const at = new Date(line.at).getTime();
    if (found.length) found.at(-1).to = at;
    found.push({ name, from: at, to: now });
  }
  return found;
}

function timeline(lines, nights, alerts, now) {
  const events = [
    ...lines.map((line) => ({ at: line.at, tone: TONE[line.action], what: WORDS[line.action] ?? line.action, about: line.version, night: line.evidence?.night_id, text: line.reason, by: line.actor })),
    ...nights.filter((night) => !lines.some((line) => line.evidence?.night_id === night.night_id)).map((night) => ({ at: night.finished_at ?? night.started_at, tone: night.state === "failed" ? "bad" : "info", what: `night ${night.state}`, about: "", night: night.night_id, text: night.outcome })),
    ...alerts.filter((alert) => alert.severity === "critical").map((alert) => ({ at: alert.at, tone: "bad", what: `alert: ${alert.kind}`, about: "", text: `${alert.title}. ${alert.next_step}` })),
  ].sort((one, other) => (one.at < other.at ? 1 : -1)).slice(0, 40);
  const live = spans(lines, now);
  return h("section", {}, h("h2", {}, "The loop's timeline"), live.length > 1 && strip(live, live[0].from, now),
    h("ol", { class: "time" }, events.map((event) => h("li", {}, h("time", { datetime: event.at }, new Date(event.at).toLocaleString()), h("span", { class: `tag ${event.tone ?? "info"}` }, event.what), " ", event.about && h("a", { href: `#lineage/${encodeURIComponent(event.about)}`, class: "id" }, event.about), event.night && [" night ", h("a", { href: `#nights/${encodeURIComponent(event.night)}`, class: "id" }, event.night)], h("div", {}, event.text, event.by && h("span", { class: "soft" }, ` (${event.by})`))))));
}

function outbox(alerts) {
  return h("section", {}, h("h2", {}, "Alerts"), alerts.length ? h("ol", { class: "time" }, alerts.slice(0, 8).map((alert) => h("li", {}, h("time", { datetime: alert.at }, new Date(alert.at).toLocaleString()),
    h("span", { class: `tag ${{ critical: "bad", warning: "warning" }[alert.severity] ?? "info"}` }, alert.kind), ` ${alert.title}`, alert.next_step && h("div", { class: "small soft" }, `Next: ${alert.next_step}`),
    Object.entries(alert.failing).map(([where, why]) => h("div", { class: "small bad" }, `not delivered to ${where}: ${why}`))))) : h("p", {}, "None yet."));
}

export default {
  name: "live", title: "Live", seconds: 5,
  load: async () => { const [live, versions, ledger, nights] = await Promise.all([read("live"), read("quality"), read("ledger"), read("nights")]); return { now: live.now, live, versions, ledger, nights }; },
  show: ({ live, versions, ledger, nights }) => [...[standing(live)].flat(), quality(versions), h("div", { class: "grid" }, timeline(ledger.lines, nights.nights, live.alerts, new Date(live.now).getTime()), outbox(live.alerts))],
};
