// Replaces the parts of the page that have changed. Without it the page is as good, but stands still.
(() => {
  'use strict';
  const main = document.getElementById('main');
  const stamp = document.getElementById('stamp');
  const alive = document.getElementById('alive');
  if (!main || !main.dataset.live || !window.EventSource) return;
  const source = new EventSource(main.dataset.live);
  source.addEventListener('open', () => { alive.textContent = ', updates by itself'; });
  source.addEventListener('error', () => { alive.textContent = ', the service does not answer'; });
  source.addEventListener('parts', (event) => {
    const next = document.createElement('template');
    next.innerHTML = event.data;
    for (const part of next.content.querySelectorAll('[data-part]')) {
      const old = document.getElementById(part.id);
      // What somebody reads with the keyboard stays under their hands.
      if (!old || old.outerHTML === part.outerHTML || old.contains(document.activeElement)) continue;
      old.replaceWith(part);
    }
    const time = next.content.querySelector('[data-stamp]');
    if (time) stamp.textContent = time.dataset.stamp;
  });
})();
