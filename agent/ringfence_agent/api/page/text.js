// Text that somebody else chose, as nodes: never markup, and nothing in it unseen.
//
// Names of zones, keys and users are hostile: whoever may make a directory chooses them. They become text nodes.
// Characters that show as nothing, or that turn the text around them (controls, direction marks, zero widths, unusual
// blanks, halves of a pair), are written out as their number. Each component of a path is isolated, so that a name
// written from right to left changes the order of no other.

const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;

export function codePoint(character) {
  return "U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
}

// For places that take text alone: titles, and labels of the graph.
export function plainText(text) {
  return String(text).replace(UNSEEN, (found) => `<${codePoint(found)}>`);
}

export function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function appendSeen(parent, text) {
  let at = 0;
  for (const found of text.matchAll(UNSEEN)) {
    parent.append(text.slice(at, found.index), element("span", "escape", codePoint(found[0])));
    at = found.index + found[0].length;
  }
  parent.append(text.slice(at));
}

const LONG = 200;

// A path, key, user or sentence. A long one is folded: its two ends are shown, and all of it on request.
export function name(text, className = "name") {
  const all = String(text);
  if (all.length <= LONG) return isolate(all, className);
  const folded = element("details", "long", element("summary", "", isolate(shorten(all, LONG / 2), className)));
  folded.append(isolate(all, `${className} whole`));
  return folded;
}

function isolate(text, className) {
  const whole = element("span", className);
  text.split("/").forEach((component, index) => {
    if (index) whole.append("/");
    if (!component) return;
    const isolated = document.createElement("bdi");
    appendSeen(isolated, component);
    whole.append(isolated);
  });
  return whole;
}

export function shorten(text, length) {
  const characters = Array.from(text);
  if (characters.length <= length) return text;
  const half = Math.floor((length - 1) / 2);
  return characters.slice(0, half).join("") + "…" + characters.slice(-half).join("");
}
