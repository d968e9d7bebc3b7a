"use strict";
// Before anything is painted: the theme chosen here earlier; without one, the system's own.
try {
  const chosen = localStorage.getItem("oddity-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
  // A browser that keeps nothing for this site follows the system.
}
