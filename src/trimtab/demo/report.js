// The report's dial. It follows strips.js, which reads the page's data and draws tokens and stories.
const sign = (d) => (d === 0 ? "0" : (d > 0 ? "+" : "−") + Math.abs(d));

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

document.querySelectorAll("button.copy").forEach((button) =>
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
    button.textContent = "copied";
  }));
