import { read } from "./api.js";
import { duration, facts, h, id, number, percent, table, when } from "./dom.js";
import { evidence } from "./draw.js";

const arm = (name, report) => [name, String(report.assigned), String(report.rated), String(report.complaints), percent(report.rated ? report.complaints / report.rated : null, 1), percent(report.assigned ? report.complaints / report.assigned : null, 1)];

export default {
  name: "canary", title: "Canary", seconds: 3,
  load: () => read("canary"),
  show: (found) => {
    if (!found.watch) return h("section", {}, h("p", {}, "No watch is open. One opens when a challenger passes the gate and is released."));
    const { watch, judged } = found;
    const words = { watch: "keep watching", step: "on to the next share", forward: "forward", back: "back", incident: "incident", deadline: "deadline reached", settle: "holdback over" };
    return [
      h("section", {}, h("h2", {}, `${watch.phase === "canary" ? "Canary" : "Holdback"}: `, id(watch.version)), h("p", { class: "big" }, words[judged.decision] ?? judged.decision), h("p", {}, judged.reason),
        facts({ "compared with": id(watch.previous), "share of new users": percent(watch.share), steps: found.steps.map((share) => percent(share)).join(", "), opened: when(watch.opened_at), "not before": `${duration(found.minimum_seconds)} of watching`, deadline: duration(found.deadline_seconds), "estimated difference": judged.difference === null ? null : `${number(100 * judged.difference, 1)} points of satisfied users` }),
        judged.rated_more && h("p", { class: "note" }, "Users of one arm rate more often. A difference in thumbs may be one of who rates.")),
      h("section", {}, h("h2", {}, "Evidence and the lines that decide"), evidence(found),
        h("p", { class: "small" }, h("span", { class: "bad" }, "Red: it is worse"), " (crossing its dashed line takes it back). ", h("span", { class: "good" }, "Green: it is not worse"), " (above its line it may go forward, once it has been watched long enough at the last share). Both may be looked at all the time: that is what the tests allow."),
        h("details", {}, h("summary", {}, "The same as numbers"), table("Evidence after each rated user (1 is none)", [{ name: "rated users", number: true }, { name: "it is worse", number: true }, { name: "it is not worse", number: true }], found.after.map((after, index) => [String(after), Math.exp(found.back[index]).toPrecision(3), Math.exp(found.forward[index]).toPrecision(3)]).reverse().slice(0, 50)))),
      h("section", {}, h("h2", {}, "Arms"), table("Users dealt to each arm at the same time", [{ name: "version" }, { name: "users", number: true }, { name: "rated", number: true }, { name: "complaints", number: true }, { name: "per rated", number: true }, { name: "per user", number: true }], [arm(watch.version, judged.version), arm(watch.previous, judged.control)])),
    ];
  },
};
