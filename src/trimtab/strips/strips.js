// Strips: texts token by token, tinted by what is read. All data stand in the page; nothing is fetched.
// data.concepts: columns; data.stories: [{t: tokens, z: [T][C], s: [T][C] smoothed, e: [T] labels}], in hundredths of
// a standard deviation (null: not read); data.units: {concept: [mean, standard deviation]} turns them into raw readings.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

function token(piece, z) {
  const span = document.createElement("span");
  const a = Math.min(Math.abs(z) / 2, 1); // a fixed scale, so that texts can be compared
  span.className = "tok " + (z > 0 ? "w" : "c") + (z > 1 ? " hi" : z < -1 ? " lo" : "");
  span.style.setProperty("--a", Math.round(a * 75) + "%");
  span.textContent = piece;
  return span;
}

const strips = { concept: data.concepts[0], smooth: $("smooth").checked };

function values(story) {
  const column = data.concepts.indexOf(strips.concept);
  return (strips.smooth ? story.s : story.z).map((row) => row[column] / 100);
}

function paint() {
  data.stories.forEach((story, k) => {
    const box = $("strip" + k), z = values(story), parts = [];
    story.t.forEach((piece, i) => {
      if (story.e[i] && story.e[i] !== story.e[i - 1]) {
        const mark = document.createElement("span");
        mark.className = "turn";
        mark.textContent = (data.turn ?? "") + story.e[i];
        parts.push(mark);
      }
      const span = token(piece, z[i]);
      span.dataset.i = i;
      parts.push(span);
    });
    box.replaceChildren(...parts);
  });
}

function number(v, concept) {
  if (v === null) return "–";
  const [mean, std] = data.units ? data.units[concept] : [0, 1];
  const x = mean + (v / 100) * std;
  return (x < 0 ? "−" : "+") + (data.units ? Math.abs(x).toPrecision(3) : Math.abs(x).toFixed(1));
}

function tell(k, i) {
  const story = data.stories[k], box = $("strip" + k);
  box.querySelectorAll(".at").forEach((e) => e.classList.remove("at"));
  box.querySelector(`[data-i="${i}"]`).classList.add("at");
  box.dataset.at = i;
  const parts = data.concepts.map(
    (e, c) => `${e} ${number(story.z[i][c], e)} (sentence ${number(story.s[i][c], e)})`);
  const out = $("readout" + k), word = document.createElement("b");
  word.textContent = "“" + (story.t[i].trim() || "⏎".repeat(story.t[i].split("\n").length - 1) || "␣") + "” ";
  out.replaceChildren(word, parts.join("  ·  ") + (data.units ? "" : "  σ"));
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
