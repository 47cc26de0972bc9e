import { Refused, key, me, read } from "./api.js";
import { ask, h, say } from "./dom.js";
import canary from "./canary.js";
import ledger from "./ledger.js";
import lineage from "./lineage.js";
import live from "./live.js";
import nights from "./nights.js";
import { busy, keepPlace } from "./place.js";
import playground from "./playground.js";
import quarantine from "./quarantine.js";

// A page: {name, title, seconds (0: not read again), load(path), show(facts, again, path)}.
const PAGES = [live, nights, canary, quarantine, ledger, lineage, playground];
const content = document.getElementById("content");
let shown = "";
let timer;
let turn = 0;

function page() {
  const [name, ...rest] = decodeURIComponent(location.hash.slice(1)).split("/");
  return { page: PAGES.find((one) => one.name === name) ?? PAGES[0], path: rest.join("/") };
}

function navigation() {
  const here = page().page;
  document.getElementById("nav").replaceChildren(...PAGES.map((one, index) =>
    h("a", { href: `#${one.name}`, "aria-current": one === here ? "page" : null, "aria-keyshortcuts": `Alt+${index + 1}` }, one.title)));
  document.title = `${here.title} · Ratchet`;
}

async function draw(force) {
  clearTimeout(timer);
  const mine = ++turn;
  const { page: here, path } = page();
  let found = null;
  let wrong = null;
  try {
    found = key.get() ? await here.load(path) : null;
  } catch (error) {
    wrong = error;
  }
  if (mine !== turn) return;
  const text = JSON.stringify([here.name, path, wrong?.message, { ...found, now: null }]);
  if (force || (text !== shown && !busy(content))) {
    shown = text;
    const again = () => draw(true);
    const body = !key.get() ? welcome() : wrong ? problem(wrong) : here.show(found, again, path);
    keepPlace(content, () => content.replaceChildren(h("h1", { tabindex: "-1" }, here.title), ...[body].flat().filter(Boolean)));
  }
  if (here.seconds && key.get() && !document.hidden) timer = setTimeout(() => draw(false), 1000 * here.seconds);
}

const welcome = () => h("section", {}, h("p", {}, "Sign in with an API key of this gateway. Looking needs the scope chat, reading what people wrote needs trusted or admin, and changing something needs admin."),
  h("button", { type: "button", onclick: signIn }, "Sign in"));

function problem(error) {
  const again = error instanceof Refused && error.status === 401;
  return h("p", { class: "note bad", role: "alert" }, error.message, again ? [" ", h("button", { type: "button", class: "quiet", onclick: signIn }, "Sign in")] : "");
}

async function signIn() {
  const given = await ask("Sign in", "The key stays in this tab until you close it or sign out.", [{ name: "key", label: "API key", type: "password" }], "Sign in");
  if (!given) return;
  key.set(given.key);
  await greet();
  await draw(true);
}

async function greet() {
  const who = document.getElementById("who");
  const button = document.getElementById("sign");
  Object.assign(me, { scopes: [], tenant: null });
  if (key.get()) {
    try {
      Object.assign(me, await read("me"));
    } catch (error) {
      say(error.message);
      if (error.status === 401) key.set(null);
    }
  }
  who.textContent = me.tenant ? `${me.name}, tenant ${me.tenant}` : "";
  button.textContent = me.tenant ? "Sign out" : "Sign in";
  document.getElementById("pipeline").textContent = me.pipeline;
  document.getElementById("links").replaceChildren(...Object.entries(me.links).flatMap(([name, url]) => [h("a", { href: url, rel: "noreferrer" }, name), " "]));
}

document.getElementById("sign").addEventListener("click", async () => {
  if (!me.tenant) return signIn();
  key.set(null);
  await greet();
  return draw(true);
});
addEventListener("hashchange", async () => {
  navigation();
  await draw(true);
  content.querySelector("h1")?.focus();
});
addEventListener("keydown", (event) => {
  const place = PAGES[Number(event.key) - 1];
  if (event.altKey && !event.ctrlKey && place) {
    event.preventDefault();
    location.hash = place.name;
  }
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) draw(false); });

navigation();
await greet();
await draw(true);
