// A page that is drawn anew keeps its reader's place: the focus, what is unfolded, how far a table was moved sideways.
const PLACES = "a, button, input, select, textarea, summary, [tabindex]";

// Each element with what it is, and the how-manieth of those: a new line above does not shift the name.
function named(content) {
  const seen = new Map();
  return new Map([...content.querySelectorAll(PLACES)].map((element) => {
    const words = element.matches("a, button, summary") ? element.textContent : "";
    const what = [element.tagName, element.id, element.getAttribute("href"), element.getAttribute("aria-label"), words].join("|");
    seen.set(what, (seen.get(what) ?? 0) + 1);
    return [`${what}|${seen.get(what)}`, element];
  }));
}

// Whether drawing now would pull something away: a field, a dialog that belongs to the page, a marked passage.
export function busy(content) {
  const here = document.activeElement;
  const typing = content.contains(here) && here.matches("input, select, textarea");
  const marked = getSelection();
  const reading = marked && !marked.isCollapsed && content.contains(marked.anchorNode);
  return typing || reading || document.querySelector("dialog[open]") !== null;
}

// Draw, and put the reader back. Where what had the focus is gone, the page's heading gets it, never the window.
export function keepPlace(content, draw) {
  const before = named(content);
  const held = content.contains(document.activeElement) && document.activeElement !== content;
  const focused = [...before].find(([, element]) => element === document.activeElement)?.[0];
  const open = [...before].filter(([, element]) => element.tagName === "SUMMARY" && element.parentElement.open).map(([name]) => name);
  const moved = [...before].filter(([, element]) => element.scrollLeft > 0).map(([name, element]) => [name, element.scrollLeft]);
  draw();
  const after = named(content);
  for (const name of open) if (after.has(name)) after.get(name).parentElement.open = true;
  for (const [name, left] of moved) if (after.has(name)) after.get(name).scrollLeft = left;
  if (held) (after.get(focused) ?? content.querySelector("h1"))?.focus({ preventScroll: true });
}
