import { call, may } from "./api.js";
import { ask, h, say } from "./dom.js";

const USER = "console-reviewer";
let talk = [];
let model = "champion";

async function complete(messages, wanted, onText) {
  const answer = await call("/v1/chat/completions", { method: "POST", body: { model: wanted, messages, stream: true, max_tokens: 400 }, headers: { "X-Ratchet-User": USER, "X-Ratchet-Task": "playground" } });
  let text = "", rest = "", facts = {};
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: ?/, "");
      if (data === "[DONE]") continue;
      const part = JSON.parse(data);
      if (part.error) throw new Error(part.error.message);
      facts = part.ratchet ?? facts;
      text += part.choices?.[0]?.delta?.content ?? "";
      onText?.(text);
    }
  }
  return { text, ...facts };
}

async function rate(answer, body, done) {
  try {
    await call("/v1/feedback", { method: "POST", body: { interaction_id: answer.interaction_id, ...body }, headers: { "X-Ratchet-User": USER } });
    say("Thank you: noted.");
    done?.();
  } catch (error) {
    say(error.message);
  }
}

function thumbs(answer) {
  const buttons = [];
  const thumb = (up, label) => h("button", { type: "button", class: "quiet", "aria-pressed": answer.up === up ? "true" : "false", onclick: () => rate(answer, { kind: "thumb", up }, () => { answer.up = up; buttons.forEach(([one, value]) => one.setAttribute("aria-pressed", String(value === up))); }) }, label);
  for (const [up, label] of [[true, "Good"], [false, "Bad"]]) buttons.push([thumb(up, label), up]);
  const edit = h("button", { type: "button", class: "quiet", onclick: async () => {
    const given = await ask("A better answer", "Write what it should have said; it becomes a training example.", [{ name: "text", label: "Answer", long: true, maxlength: 20000, value: answer.text }], "Send");
    if (given) await rate(answer, { kind: "edit", text: given.text });
  } }, "Edit");
  return h("div", { class: "row" }, buttons.map(([one]) => one), edit, h("span", { class: "small soft" }, may("admin") ? answer.version : ""));
}

function chat(models) {
  const log = h("div", { "aria-live": "polite", "aria-label": "Conversation", role: "log" });
  const input = h("textarea", { id: "ask", rows: 3, required: true });
  const button = h("button", { type: "submit" }, "Send");
  const draw = () => log.replaceChildren(...talk.map((turn) => (turn.role === "user" ? h("div", { class: "said-user" }, turn.content) : h("div", { class: "said-model" }, turn.content, turn.answer && thumbs(turn.answer)))));
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    if (!input.value.trim()) return;
    talk.push({ role: "user", content: input.value.trim() });
    input.value = "";
    const turn = { role: "assistant", content: "…" };
    const messages = talk.map(({ role, content }) => ({ role, content }));
    talk.push(turn);
    button.disabled = true;
    draw();
    try {
      turn.answer = await complete(messages, model, (text) => { turn.content = text; log.lastChild.textContent = text; });
      turn.content = turn.answer.text;
    } catch (error) {
      turn.content = error.message;
    }
    button.disabled = false;
    draw();
    input.focus();
  } }, h("label", { for: "ask" }, "Your message"), input, h("div", { class: "row" }, button, h("button", { type: "button", class: "quiet", onclick: () => { talk = []; draw(); input.focus(); } }, "New conversation")));
  input.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(); });
  draw();
  const choose = h("select", { id: "model", onchange: (event) => { model = event.target.value; } }, models.map((name) => h("option", { value: name, selected: name === model }, name === "champion" ? "champion (whoever is live)" : name)));
  return h("section", {}, h("h2", {}, "Chat"), h("div", { class: "row" }, h("label", { for: "model" }, "Version"), choose), log, form);
}

// Two blind answers: the gateway draws who answers first, and tells nobody which is which.
function arena() {
  const place = h("div", { "aria-live": "polite" });
  const input = h("textarea", { id: "arena-ask", rows: 2, required: true });
  const post = async (path, body) => (await call(path, { method: "POST", body, headers: { "X-Ratchet-User": USER } })).json();
  const choose = async (pair, winner, words) => {
    try {
      await post("/v1/arena/choice", { arena_id: pair.arena_id, winner });
      place.replaceChildren(h("p", {}, words));
      say("Thank you: noted.");
    } catch (error) {
      say(error.message);
    }
  };
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    place.replaceChildren(h("p", {}, "Both answer …"));
    try {
      const pair = await post("/v1/arena", { model: "champion", messages: [{ role: "user", content: input.value.trim() }], max_tokens: 400 });
      const button = (winner, label, words) => h("button", { type: "button", onclick: () => choose(pair, winner, words) }, label);
      place.replaceChildren(
        h("div", { class: "answers" }, pair.answers.map((answer, index) => h("div", { class: "card" }, h("h3", {}, `Answer ${"AB"[index]}`), h("pre", {}, answer.content), button(["first", "second"][index], `${"AB"[index]} is better`, `You preferred ${"AB"[index]}.`)))),
        h("div", { class: "row" }, button("tie", "No difference", "You saw no difference.")));
    } catch (error) {
      place.replaceChildren(h("p", { class: "note bad", role: "alert" }, error.message));
    }
  } }, h("label", { for: "arena-ask" }, "Question for both"), input, h("div", { class: "row" }, h("button", { type: "submit" }, "Ask both")));
  return h("section", {}, h("h2", {}, "Arena"), h("p", { class: "small soft" }, "The champion and what is on trial answer (without a trial, the champion twice). Your choice becomes a preference."), form, place);
}

export default {
  name: "playground", title: "Playground", seconds: 0,
  load: async () => ({ models: (await (await call("/v1/models")).json()).data.map((one) => one.id) }),
  show: ({ models }) => [chat(models), arena()],
};
