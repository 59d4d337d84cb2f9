// The report's dial and strips. All data stand in the page; nothing is fetched.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const sign = (d) => (d === 0 ? "0" : (d > 0 ? "+" : "−") + Math.abs(d));

function token(piece, z) {
  const span = document.createElement("span");
  const a = Math.min(Math.abs(z) / 2, 1); // a fixed scale, so that texts can be compared
  span.className = "tok " + (z > 0 ? "w" : "c") + (z > 1 ? " hi" : z < -1 ? " lo" : "");
  span.style.setProperty("--a", Math.round(a * 75) + "%");
  span.textContent = piece;
  return span;
}

function say(element, cell) {
  element.replaceChildren(...cell.t.map((piece, i) => token(piece, data.tint ? cell.z[i] / 100 : 0)));
}

// --- the dial
const dial = { emotion: data.emotions[0], prompt: 0, dose: data.best[data.emotions[0]] };

function fill(card, dose) {
  const at = data.doses.indexOf(dose);
  const cell = data.cells[dial.emotion][dial.prompt][at];
  const quality = data.quality[dial.emotion][at];
  card.querySelector("h3 b").textContent = sign(dose);
  say(card.querySelector(".says"), cell);
  card.querySelector(".p").textContent = Math.round(cell.p * 100) + " %";
  card.querySelector(".fill").style.width = cell.p * 100 + "%";
  const note = card.querySelector(".note");
  note.className = quality.ok ? "note" : "note warn";
  note.textContent = quality.ok ? `coherence at this dose ${quality.c.toFixed(2)}`
    : `coherence at this dose ${quality.c.toFixed(2)}: the language is breaking up`;
}

function turn() {
  $("question").textContent = data.prompts[dial.prompt];
  const low = data.doses[0];
  fill($("away"), low);
  fill($("plain"), 0);
  fill($("toward"), dial.dose);
  $("toward").className = "card " + (dial.dose < 0 ? "away" : dial.dose > 0 ? "toward" : "");
  $("direction").textContent = dial.dose < 0 ? "pushed away" : dial.dose > 0 ? "pushed toward" : "untouched";
  document.querySelectorAll(".emotion").forEach((e) => (e.textContent = dial.emotion));
  const told = data.told[dial.emotion][dial.prompt];
  $("persona").textContent = data.personas[dial.emotion];
  say($("told"), told);
  $("toldp").textContent = Math.round(told.p * 100) + " %";
  $("dose").value = data.doses.indexOf(dial.dose);
  $("dose").setAttribute("aria-valuetext", "dose " + sign(dial.dose));
  [...$("ticks").children].forEach((tick, i) => {
    const here = data.doses[i] === dial.dose;
    tick.classList.toggle("here", here);
    tick.innerHTML = here ? "<b>" + sign(data.doses[i]) + "</b>" : sign(data.doses[i]);
  });
}

document.querySelectorAll("input[name=emotion]").forEach((radio) =>
  radio.addEventListener("change", () => { dial.emotion = radio.value; dial.dose = data.best[radio.value]; turn(); }));
$("prompt").addEventListener("change", (event) => { dial.prompt = Number(event.target.value); turn(); });
$("dose").addEventListener("input", (event) => { dial.dose = data.doses[Number(event.target.value)]; turn(); });
$("tint").addEventListener("change", (event) => { data.tint = event.target.checked; turn(); });
data.tint = $("tint").checked;
turn();

// --- the strips
const strips = { concept: data.emotions[0], smooth: $("smooth").checked };

function values(story) {
  const column = data.emotions.indexOf(strips.concept);
  return (strips.smooth ? story.s : story.z).map((row) => row[column] / 100);
}

function paint() {
  data.stories.forEach((story, k) => {
    const box = $("strip" + k), z = values(story), parts = [];
    story.t.forEach((piece, i) => {
      if (story.e[i] !== story.e[i - 1]) {
        const mark = document.createElement("span");
        mark.className = "turn";
        mark.textContent = "written as " + story.e[i];
        parts.push(mark);
      }
      const span = token(piece, z[i]);
      span.dataset.i = i;
      parts.push(span);
    });
    box.replaceChildren(...parts);
  });
}

function tell(k, i) {
  const story = data.stories[k], box = $("strip" + k);
  box.querySelectorAll(".at").forEach((e) => e.classList.remove("at"));
  box.querySelector(`[data-i="${i}"]`).classList.add("at");
  box.dataset.at = i;
  const number = (v) => (v < 0 ? "−" : "+") + Math.abs(v / 100).toFixed(1);
  const parts = data.emotions.map((e, c) => `${e} ${number(story.z[i][c])} (sentence ${number(story.s[i][c])})`);
  const out = $("readout" + k), word = document.createElement("b");
  word.textContent = "“" + story.t[i].trim() + "” ";
  out.replaceChildren(word, parts.join("  ·  ") + "  σ");
}

data.stories.forEach((story, k) => {
  const box = $("strip" + k);
  const hover = (event) => { if (event.target.dataset.i) tell(k, Number(event.target.dataset.i)); };
  box.addEventListener("mouseover", hover);
  box.addEventListener("click", hover);
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    tell(k, Math.max(0, Math.min(story.t.length - 1, Number(box.dataset.at ?? -step) + step)));
  });
});
document.querySelectorAll("input[name=concept]").forEach((radio) =>
  radio.addEventListener("change", () => { strips.concept = radio.value; paint(); }));
$("smooth").addEventListener("change", (event) => { strips.smooth = event.target.checked; paint(); });
paint();

document.querySelectorAll("button.copy").forEach((button) =>
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
    button.textContent = "copied";
  }));
