// The flows as a graph: columns from left to right, an arrow for each edge. Drawn as SVG, laid out here.
//
// The layout is the usual one for small graphs: edges that would close a circle are turned round for the layout alone,
// a place stands one column right of the furthest place that leads to it, and within a column places are put near
// the middle of what leads to them. More than MOST_NODES are not drawn: a table is easier to read then.

import { plainText, shorten } from "./text.js";

export const MOST_NODES = 60;
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 250, HEIGHT = 34, GAP_X = 110, GAP_Y = 22, MARGIN = 12, TURN = 44, LABEL = 30;

function forwardEdges(nodes, edges) {
  // Depth first, with a stack of our own: an edge back to where we come from is the one that closes a circle.
  const out = new Map(nodes.map((node) => [node, []]));
  for (const edge of edges) if (edge.from !== edge.to) out.get(edge.from).push(edge.to);
  const state = new Map(), kept = [];
  for (const root of nodes) {
    if (state.has(root)) continue;
    const stack = [[root, 0]];
    state.set(root, "open");
    while (stack.length) {
      const top = stack[stack.length - 1];
      const next = out.get(top[0])[top[1]++];
      if (next === undefined) {
        state.set(top[0], "done");
        stack.pop();
      } else if (state.get(next) !== "open") {
        kept.push([top[0], next]);
        if (!state.has(next)) { state.set(next, "open"); stack.push([next, 0]); }
      } else {
        kept.push([next, top[0]]);
      }
    }
  }
  return kept;
}

export function layOut(edges) {
  const nodes = [...new Set(edges.flatMap((edge) => [edge.from, edge.to]))].sort();
  const forward = forwardEdges(nodes, edges);
  const column = new Map(nodes.map((node) => [node, 0]));
  for (let round = 0; round < nodes.length; round++) {
    let moved = false;
    for (const [from, to] of forward) {
      if (column.get(to) < column.get(from) + 1 && column.get(from) + 1 < nodes.length) {
        column.set(to, column.get(from) + 1);
        moved = true;
      }
    }
    if (!moved) break;
  }
  const columns = [];
  for (const node of nodes) (columns[column.get(node)] ??= []).push(node);
  const row = new Map();
  for (const members of columns) {
    const middle = new Map(members.map((node) => {
      const sources = forward.filter(([from, to]) => to === node && row.has(from)).map(([from]) => row.get(from));
      return [node, sources.length ? sources.reduce((sum, each) => sum + each, 0) / sources.length : Infinity];
    }));
    members.sort((a, b) => (middle.get(a) === middle.get(b) ? (a < b ? -1 : 1) : middle.get(a) - middle.get(b)));
    members.forEach((node, index) => row.set(node, index));
  }
  return new Map(nodes.map((node) => [node, {
    x: MARGIN + TURN + column.get(node) * (WIDTH + GAP_X),
    y: MARGIN + row.get(node) * (HEIGHT + GAP_Y),
  }]));
}

function shape(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}

function path(from, to) {
  const startX = from.x + WIDTH, startY = from.y + HEIGHT / 2, endX = to.x - 7, endY = to.y + HEIGHT / 2;
  if (endX > startX) {
    const bend = (endX - startX) / 2;
    return `M${startX} ${startY}C${startX + bend} ${startY} ${endX - bend} ${endY} ${endX} ${endY}`;
  }
  // Back to the left: below both, so that it can be told from the way there.
  const below = Math.max(from.y, to.y) + HEIGHT + GAP_Y / 2;
  return `M${startX} ${startY}C${startX + TURN} ${startY} ${startX + TURN} ${below} ${startX} ${below}`
    + `L${endX} ${below}C${endX - TURN} ${below} ${endX - TURN} ${endY} ${endX} ${endY}`;
}

// `isClear` says whether a place is outside every zone. Returns an <svg>.
export function draw(edges, isClear) {
  const places = layOut(edges);
  const width = Math.max(...[...places.values()].map((at) => at.x)) + WIDTH + MARGIN + TURN;
  const height = Math.max(...[...places.values()].map((at) => at.y)) + HEIGHT + GAP_Y + MARGIN;
  const drawing = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Flows between zones" });
  const head = shape("marker", { id: "head", viewBox: "0 0 8 8", refX: 2, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto-start-reverse" },
    shape("path", { d: "M0 0L8 4L0 8z", class: "head" }));
  drawing.append(shape("defs", {}, head));
  for (const edge of edges) {
    const line = shape("path", { d: path(places.get(edge.from), places.get(edge.to)), class: "edge", "marker-end": "url(#head)" },
      shape("title", {}, `${plainText(edge.from)} to ${plainText(edge.to)}: ${edge.who.map(plainText).join(", ")}`));
    drawing.append(line);
  }
  for (const [place, at] of places) {
    drawing.append(shape("g", {},
      shape("title", {}, plainText(place)),
      shape("rect", { x: at.x, y: at.y, width: WIDTH, height: HEIGHT, rx: 6, class: isClear(place) ? "node clear" : "node" }),
      shape("text", { x: at.x + 10, y: at.y + 22, direction: "ltr", "unicode-bidi": "isolate-override" }, shorten(plainText(place), LABEL))));
  }
  return drawing;
}
