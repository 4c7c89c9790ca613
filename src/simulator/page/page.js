"use strict";
// Shows what is new every few seconds, and closes a ticket when its button is pressed.
document.addEventListener("click", async (event) => {
  const what = event.target.dataset.close;
  if (!what) return;
  event.target.disabled = true;
  const answer = await fetch("/simulator/close/" + what, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: "{}",
  });
  if (answer.ok) location.reload();
  else event.target.replaceWith(document.createTextNode("refused: " + answer.status));
});
setTimeout(() => location.reload(), 5000);
