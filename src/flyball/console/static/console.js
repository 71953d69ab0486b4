// Refreshes the loop every second, without reloading; says so when the platform does not answer.
"use strict";

const loop = document.getElementById("loop");
const live = document.getElementById("live");

async function refresh() {
  if (!document.hidden) {
    try {
      const answer = await fetch("/console/loop", { credentials: "same-origin", cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status === 401 ? "session ended: open the console again" : "no answer");
      loop.innerHTML = await answer.text();
      live.textContent = "live";
      live.classList.remove("lost");
    } catch (error) {
      live.textContent = error instanceof TypeError ? "the platform does not answer" : error.message;
      live.classList.add("lost");
    }
  }
  setTimeout(refresh, 1000);
}

setTimeout(refresh, 1000);
