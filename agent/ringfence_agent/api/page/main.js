// The page: asks the agent every two seconds and shows what it says. It changes nothing, anywhere.
//
// What was shown last stays when the agent does not answer, under a line that says so and since when. A section whose
// data the agent does not have is not shown. Nothing is drawn anew unless it changed, so that a selection stays.

import { draw, MOST_NODES } from "./graph.js";
import { element, name, plainText } from "./text.js";

const EVERY_MS = 2000;
const MOST_ROWS = 200;
const SEVERITIES = { error: "Error", warn: "Warning", info: "Note" };
const find = (id) => document.getElementById(id);

const seen = { health: null, overview: null, refused: null, transfers: null };
const etags = new Map();
const shownAll = new Set();
const denied = new Set();
let lastAnswer = null;

// Returns the answer, or undefined when it is the one we have. Throws when there is none.
async function ask(path) {
  const headers = { Accept: "application/json" };
  if (etags.has(path)) headers["If-None-Match"] = etags.get(path);
  const answer = await fetch(path, { headers, cache: "no-store", redirect: "error", signal: AbortSignal.timeout(15000) });
  if (answer.status === 304) return undefined;
  // An agent that is not live still says so, as a 503 with the same document.
  if (!answer.ok && !(answer.status === 503 && path === "/v1/health")) {
    const problem = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(problem.detail ?? `the agent answered ${answer.status}`), { status: answer.status });
  }
  const body = await answer.json();
  if (answer.headers.has("ETag")) etags.set(path, answer.headers.get("ETag"));
  return body;
}

async function look() {
  seen.health = await ask("/v1/health");
  const overview = await ask("/v1/overview");
  if (overview) { seen.overview = overview; showOverview(); }
  const refused = await ask("/v1/moves/refused");
  if (refused) { seen.refused = refused; showRefused(); }
  if (isThere("transfers")) await lookAtTransfers();
}

// A section whose data the agent does not have, or not for whoever looks, is not shown.
const isThere = (section) => seen.overview !== null && seen.overview.sections.includes(section) && !denied.has(section);

async function lookAtTransfers() {
  try {
    const transfers = await ask("/v1/transfers");
    if (transfers) { seen.transfers = transfers; showTransfers(); }
  } catch (error) {
    if (error.status !== 403) throw error;
    denied.add("transfers");
    showOverview();
  }
}

async function goOn() {
  if (document.visibilityState === "visible") {
    try {
      await look();
      lastAnswer = new Date();
      showStatus();
    } catch (error) {
      showTrouble(error);
    }
  }
  setTimeout(goOn, EVERY_MS);
}

function say(text, isTrouble) {
  const status = find("status");
  const said = name(text, "");
  if (status.textContent !== said.textContent) status.replaceChildren(said);
  status.classList.toggle("trouble", isTrouble);
}

function showStatus() {
  const health = seen.health;
  if (!health.live) say(`The agent's loop stands still: no cycle has ended for ${Math.round(health.cycle_age_s)} s. What you see may have changed.`, true);
  else if (!health.ready) say(`The agent does not see the cluster, and what you see may have changed: ${health.sentence}`, true);
  else say(health.sentence, false);
  find("version").textContent = `Ringfence ${health.version}, cycle ${health.cycle}.`;
  const mode = find("mode");
  mode.hidden = !health.mode;
  mode.textContent = health.mode ?? "";
  mode.className = `badge ${health.mode ?? ""}`;
}

function showTrouble(error) {
  const why = error.name === "TimeoutError" ? "no answer within 15 s" : error.name === "TypeError" ? "nobody answers" : error.message;
  const since = lastAnswer ? ` What you see is from ${lastAnswer.toLocaleTimeString()}.` : "";
  say(`The agent cannot be asked: ${why}. Trying again.${since}`, true);
}

const cell = (...children) => element("td", "", ...children);
const row = (...cells) => element("tr", "", ...cells);
const answerCell = (value, yes, no) => cell(element("span", value === null ? "muted" : value ? "yes" : "no", value === null ? "not known" : value ? yes : no));

// The rows that name what is looked for; `words` gives the text of one.
function matching(rows, words) {
  const wanted = find("filter").value.trim().toLowerCase();
  return wanted ? rows.filter((each) => words(each).some((word) => word && word.toLowerCase().includes(wanted))) : rows;
}

// Puts at most MOST_ROWS on the page until all are asked for, and says how many there are.
function fill(section, parent, rows, total, make) {
  const all = shownAll.has(section);
  const shown = all ? rows : rows.slice(0, MOST_ROWS);
  find(parent).replaceChildren(...shown.map(make));
  find(`${section}-count`).textContent = rows.length === total ? `${total}` : `${rows.length} of ${total}`;
  const more = find(`${section}-more`);
  more.hidden = shown.length === rows.length;
  more.textContent = `Show all ${rows.length}`;
}

function showOverview() {
  find("cluster").replaceChildren(name(seen.overview.cluster ?? ""));
  for (const part of document.querySelectorAll("[data-section]")) part.hidden = !isThere(part.dataset.section);
  showFindings();
  showZones();
  showFlows();
}

function showFindings() {
  const all = seen.overview.findings;
  const rows = matching(all, (each) => [each.path, each.key, each.rule, each.message]);
  find("findings-note").textContent = all.length ? "" : "Nothing was found that is not as it should be.";
  fill("findings", "findings-list", rows, all.length, (each) => {
    const item = element("li", each.severity,
      element("span", "severity", SEVERITIES[each.severity] ?? each.severity), " ", name(each.path), " ", element("span", "muted", each.rule),
      element("p", "", name(each.message, "")), element("p", "muted", name(each.hint, "")));
    if (each.command) item.append(command(each.command));
    return item;
  });
}

function command(text) {
  return element("code", "command", name(text, ""));
}

function showZones() {
  const { zones, kms } = seen.overview;
  const rows = matching(zones, (each) => [each.path, each.key, each.custody]);
  const revision = kms?.revision ? `, policy revision ${kms.revision} published` : "";
  find("zones-note").replaceChildren(kms === null ? "The KMS does not answer: what it knows of keys is missing below." : name(`${kms.uri}${revision}`, ""));
  fill("zones", "zones-rows", rows, zones.length, (each) => row(
    element("th", "", name(each.path)), cell(name(each.key)),
    element("td", "number", each.versions === null ? element("span", "muted", "not known") : name(`${each.key}@${each.versions - 1}`)),
    element("td", "number", each.length_bits === null ? "" : `${each.length_bits} bits`),
    cell(each.custody ?? element("span", "muted", "not known")),
    answerCell(each.in_policy, "yes", "no"), answerCell(each.pinned, "yes", "no")));
  for (const head of find("zones-rows").querySelectorAll("th")) head.scope = "row";
}

function showFlows() {
  const flows = seen.overview.flows;
  const edges = [...(flows?.edges ?? []), ...(flows?.outside ?? [])];
  const shown = matching(edges, (each) => [each.from, each.to, ...each.who]);
  const places = new Set(shown.flatMap((each) => [each.from, each.to]));
  const isDrawn = shown.length > 0 && places.size <= MOST_NODES;
  find("flows-note").textContent = flowsNote(flows) + (shown.length && !isDrawn ? " These are too many places to draw; look for one above, and its flows are drawn." : "");
  find("flows-figure").hidden = !isDrawn;
  const clear = new Set((flows?.outside ?? []).map((each) => each.to));
  find("flows-graph").replaceChildren(...(isDrawn ? [draw(shown, (place) => clear.has(place))] : []));
  find("flows-table").hidden = !edges.length;
  fill("flows", "flows-rows", shown, edges.length, (each) => row(cell(name(each.from)), cell(name(each.to)), cell(name(each.who.join(", ") || "whoever may read it"))));
}

function flowsNote(flows) {
  if (flows === null) return "The agent has no policy.";
  const outside = flows.outside === null ? "" : " Data leaves for clear text only along the edges to a dashed frame.";
  if (flows.edges === null) return `The policy has no flows: copies between zones are not restricted.${outside}`;
  const mode = flows.mode === "enforce" ? "Another copy is refused." : "Another copy is recorded (shadow), not refused.";
  const none = flows.edges.length ? "Data may go from one zone to another only along these edges." : "The policy lets data go from no zone to another.";
  return `${none} ${mode}${outside}`;
}

function showRefused() {
  const { moves, all_callers: ofAll } = seen.refused;
  const rows = matching(moves, (each) => [each.src, each.dst, each.user, each.rule]);
  const whose = ofAll ? "Questions about a move" : "Your questions about a move";
  find("refused-note").textContent = `${whose} that the agent answered with no since it started, newest first.`;
  fill("refused", "refused-rows", rows, moves.length, (each) => row(
    element("td", "number", time(each.at_s)), cell(name(each.user)), cell(name(each.src)), cell(name(each.dst)), cell(each.rule ?? ""),
    cell(each.command ? command(each.command) : element("span", "muted", "nothing: the policy allows no way"))));
}

function showTransfers() {
  const all = seen.transfers.transfers;
  const rows = matching(all, (each) => [each.id, each.src, each.dst, each.user, each.state]);
  find("transfers-note").textContent = all.length ? "" : "No transfer was asked for yet.";
  fill("transfers", "transfers-rows", rows, all.length, (each) => row(
    cell(name(each.src)), cell(name(each.dst)), cell(name(each.user)), cell(...transferState(each)), cell(...progress(each))));
}

function transferState({ state, waits_for: waitsFor, problem }) {
  const said = [element("span", state === "failed" ? "no" : state === "done" ? "yes" : "", state.replaceAll("_", " "))];
  if (waitsFor) said.push(element("p", "muted", name(waitsFor, "")));
  if (problem) said.push(element("p", "muted", name(problem.message, "")));
  if (problem?.command) said.push(command(problem.command));
  return said;
}

function progress({ src, files, files_verified: filesDone, bytes, bytes_verified: done, rate, time_left_s: left }) {
  if (!files) return [];
  const bar = element("progress", "");
  bar.max = Math.max(bytes, 1);
  bar.value = bytes ? done : 1;
  bar.setAttribute("aria-label", `verified of ${plainText(src)}`);
  const told = [`${filesDone} of ${files} files`, `${size(done)} of ${size(bytes)}`];
  if (rate) told.push(`${size(rate)}/s`);
  if (left !== null) told.push(`${Math.ceil(left)} s left`);
  return [bar, element("p", "muted", told.join(", "))];
}

function size(bytes) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
  const step = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(bytes, 1)) / 10)));
  return `${(bytes / 1024 ** step).toFixed(step ? 1 : 0)} ${units[step]}`;
}

function time(seconds) {
  const made = element("time", "", new Date(seconds * 1000).toLocaleString());
  made.dateTime = new Date(seconds * 1000).toISOString();
  return made;
}

function showAgain() {
  if (seen.overview) showOverview();
  if (seen.refused) showRefused();
  if (seen.transfers) showTransfers();
}

find("filter").addEventListener("input", showAgain);
for (const section of ["findings", "zones", "flows", "transfers", "refused"]) {
  find(`${section}-more`).addEventListener("click", () => { shownAll.add(section); showAgain(); });
}
goOn();
