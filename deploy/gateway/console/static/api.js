// The key lives in this tab only, and goes nowhere but to this server.
const NAME = "ratchet-key";
export const key = {
  get: () => sessionStorage.getItem(NAME),
  set: (value) => (value ? sessionStorage.setItem(NAME, value) : sessionStorage.removeItem(NAME)),
};
export const me = { scopes: [], tenant: null, pipeline: "", links: {} };
export const may = (scope) => me.scopes.includes(scope) || (scope === "read" && (me.scopes.includes("trusted") || me.scopes.includes("admin")));

export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

export async function call(path, { method = "GET", body, headers = {} } = {}) {
  const answer = await fetch(path, {
    method,
    headers: { Authorization: `Bearer ${key.get() ?? ""}`, ...(body ? { "Content-Type": "application/json" } : {}), ...headers },
    body: body ? JSON.stringify(body) : undefined,
    cache: "no-store",
  });
  if (!answer.ok) {
    let message = `HTTP ${answer.status}`;
    try { message = (await answer.json()).error.message; } catch { /* not JSON: the status says it */ }
    throw new Refused(answer.status, message);
  }
  return answer;
}
export const read = async (path) => (await call(`/console/api/${path}`)).json();
export const send = async (path, body) => (await call(`/console/api/${path}`, { method: "POST", body })).json();
