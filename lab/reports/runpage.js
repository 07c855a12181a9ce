// Draws one run of an experiment at a time that a slider chooses. The data stand in the page as JSON (runpage.py says how).
"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}[c]));
const seconds = (t) => (t >= 100 ? t.toFixed(1) : t.toFixed(2)) + " s";
const colour = (n) => D.colours[n % D.colours.length];
const [NAME, NODE, COLOUR, BOUND, SPANS, WHYS, IMAGE] = [0, 1, 2, 3, 4, 5, 6];
const ASIDE = /^gone$/;

// Every time at which something changes: where the arrow keys stop.
const times = [...new Set([D.begin, D.end, ...D.pods.flatMap((p) => p[SPANS].flatMap((s) => [s[1], s[2]])),
  ...D.flags.map((f) => f[0])])].filter((t) => t >= D.begin && t <= D.end).sort((a, b) => a - b);
let now = D.begin, chosen = null, playing = null;

function last(list, t) {  // the last entry [time, ...] at or before t; null before the first
  let found = null;
  for (const one of list) { if (one[0] > t) break; found = one; }
  return found;
}

function phase(pod, t) {  // index of the phase, -1 while the pod is not there
  for (const [what, begin, end] of pod[SPANS]) if (t >= begin && (t < end || (t === end && end === D.end))) return what;
  return -1;
}

function square(n, what) {
  const pod = D.pods[n];
  return `<i class="pod ${D.phases[what]}${n === chosen ? " chosen" : ""}" data-pod="${n}" style="--c:${colour(pod[COLOUR])}"` +
    ` title="${escaped(pod[NAME])}: ${D.phases[what]}"></i>`;
}

function drawNodes() {
  const on = new Map(D.nodes.map(([name]) => [name, []])), waiting = [];
  D.pods.forEach((pod, n) => {
    const what = phase(pod, now);
    if (what < 0) return;
    if (pod[BOUND] !== null && now >= pod[BOUND] && on.has(pod[NODE])) on.get(pod[NODE]).push([n, what]);
    else waiting.push([n, what]);
  });
  let html = "";
  if (waiting.length) html += `<div class="node none"><b>on no node<span>${waiting.length}</span></b>` +
    waiting.map(([n, what]) => square(n, what)).join("") + "</div>";
  for (const [name, states] of D.nodes) {
    const state = last(states, now);
    if (!state || ASIDE.test(state[1])) continue;
    const pods = on.get(name);
    html += `<div class="node${state[1] ? " down" : ""}"><b>${escaped(name)}<span>${escaped(state[1]) || pods.length || ""}</span></b>` +
      pods.map(([n, what]) => square(n, what)).join("") + "</div>";
  }
  $("nodes").innerHTML = html;
}

function drawLog() {
  const entries = [...D.flags.filter((f) => f[0] <= now).map(([t, text, kind]) => [t, kind === "mark" ? `mark ${text}` : text, kind]),
    ...D.events.filter((e) => e[0] <= now).map(([t, type, reason, message, who]) => [t, `${reason}: ${message}`, type, who])];
  entries.sort((a, b) => b[0] - a[0]);
  const lines = [];
  for (const [t, text, kind, who] of entries) {  // what is said of many objects at once is one line
    const one = lines.find((l) => l.text === text && Math.abs(l.t - t) < 0.5);
    if (one) one.who.push(who);
    else if (lines.length === 14) break;
    else lines.push({t, text, kind, who: [who]});
  }
  $("log").innerHTML = lines.map(({t, text, kind, who}) => `<li><time>${seconds(t)}</time><span class="${escaped(kind)}">${escaped(text)}` +
    `${who.length > 1 ? ` (${who.length} objects)` : who[0] ? ` (${escaped(who[0])})` : ""}</span></li>`).join("");
}

function drawWhy() {
  if (chosen === null) return;
  const pod = D.pods[chosen], what = phase(pod, now), why = last(pod[WHYS], now);
  $("who").textContent = pod[NAME];
  const where = pod[BOUND] !== null && now >= pod[BOUND] ? `on ${pod[NODE]}` : "on no node";
  $("why").textContent = what < 0 ? "It is not there at this time." : `${D.phases[what]}, ${where}, ${pod[IMAGE]}: ${D.texts[why[1]]}`;
  const told = pod[WHYS].map(([t, n]) => [t, D.texts[n]]);
  if (pod[BOUND] !== null) told.push([pod[BOUND], `is bound to ${pod[NODE]}`]);
  for (const [t, , reason, message, who] of D.events) if (who === `Pod ${pod[NAME]}`) told.push([t, `${reason}: ${message}`]);
  told.sort((a, b) => a[0] - b[0]);
  $("history").innerHTML = told.map(([t, text]) =>
    `<li class="${t > now ? "later" : ""}"><time>${seconds(t)}</time><span>${escaped(text)}</span></li>`).join("");
}

function drawStrip() {  // ready and waiting pods over time, steps, and where we are
  const width = $("strip").clientWidth || 900, height = 74, top = 14, steps = 240;
  const x = (t) => ((t - D.begin) / (D.end - D.begin || 1)) * width;
  const counts = Array.from({length: steps + 1}, () => [0, 0]), step = (D.end - D.begin) / steps || 1;
  for (const pod of D.pods) for (const [what, begin, end] of pod[SPANS]) {
    if (what !== 0 && what !== 2) continue;
    const from = Math.max(0, Math.ceil((begin - D.begin) / step)), to = Math.min(steps, Math.ceil((end - D.begin) / step) - 1);
    for (let n = from; n <= (end === D.end ? steps : to); n++) counts[n][what === 0 ? 1 : 0]++;
  }
  const most = Math.max(1, ...counts.map((c) => Math.max(...c)));
  const path = (k) => counts.map((c, n) => `${n ? "L" : "M"}${((n / steps) * width).toFixed(1)},${(height - 2 - (c[k] / most) * (height - top - 4)).toFixed(1)}`).join("");
  let html = D.flags.map(([t, text, kind]) => `<line x1="${x(t)}" x2="${x(t)}" y1="0" y2="${height}" stroke="${kind === "fault" ? "#b3361a" : "#8a9199"}"` +
    ` stroke-dasharray="2 2"><title>${escaped(text)}</title></line>`).join("");
  html += `<path d="${path(0)}L${width},${height}L0,${height}Z" fill="#0072b2" opacity=".12"/><path d="${path(0)}" fill="none" stroke="#0072b2" stroke-width="1.5"/>`;
  if (counts.some((c) => c[1])) html += `<path d="${path(1)}" fill="none" stroke="#d9820f" stroke-width="1.5"/>`;
  html += `<text x="2" y="11" font-size="11" fill="#0072b2">ready (most ${most})</text><text x="110" y="11" font-size="11" fill="#d9820f">waiting</text>`;
  $("strip").innerHTML = html + `<line id="here" y1="0" y2="${height}" stroke="#1f2328" stroke-width="1.5"/>`;
}

function show(t) {
  now = Math.min(D.end, Math.max(D.begin, t));
  $("slider").value = now;
  $("now").textContent = seconds(now);
  const at = ((now - D.begin) / (D.end - D.begin || 1)) * ($("strip").clientWidth || 900);
  $("here").setAttribute("x1", at);
  $("here").setAttribute("x2", at);
  drawNodes();
  drawLog();
  drawWhy();
}

function play(on) {
  clearInterval(playing);
  playing = on ? setInterval(() => { if (now >= D.end) play(false); else show(now + (D.end - D.begin) / 400); }, 50) : null;
  $("play").textContent = on ? "Stop" : "Play";
}

function go(forward, stops) {
  const next = forward ? stops.find((t) => t > now + 1e-9) : stops.filter((t) => t < now - 1e-9).pop();
  if (next !== undefined) show(next);
}

$("slider").min = D.begin;
$("slider").max = D.end;
$("slider").addEventListener("input", () => show(Number($("slider").value)));
$("play").addEventListener("click", () => { if (!playing && now >= D.end) show(D.begin); play(!playing); });
$("strip").addEventListener("click", (e) => show(D.begin + (e.offsetX / $("strip").clientWidth) * (D.end - D.begin)));
$("nodes").addEventListener("click", (e) => {
  if (e.target.dataset.pod === undefined) return;
  chosen = Number(e.target.dataset.pod);
  show(now);
});
document.addEventListener("keydown", (e) => {
  if (e.key === " ") { e.preventDefault(); play(!playing); }
  if (e.key !== "ArrowLeft" && e.key !== "ArrowRight") return;
  e.preventDefault();
  go(e.key === "ArrowRight", e.shiftKey ? D.flags.map((f) => f[0]) : times);
});
window.addEventListener("resize", () => { drawStrip(); show(now); });
$("nodes").className = D.nodes.length > 60 ? "dense" : "";
$("key").innerHTML = D.versions.slice(0, 8).map((name, n) => `<span><i class="pod" style="--c:${colour(n)}"></i>${escaped(name)}</span>`).join("") +
  D.phases.map((name) => `<span><i class="pod ${name}" style="--c:#5c636b"></i>${name}</span>`).join("");
drawStrip();
// page.html#t=12.5&pod=default/web-1 begins there.
const wish = new URLSearchParams(location.hash.slice(1));
const pod = D.pods.findIndex((p) => p[NAME] === wish.get("pod"));
if (pod >= 0) chosen = pod;
show(wish.has("t") ? Number(wish.get("t")) : D.begin);
