"use strict";
for (const place of document.querySelectorAll(".origin")) place.textContent = location.origin;

const element = (tag, properties, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

const ask = async (path, options) => {
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail || response.statusText);
  return answer;
};

const showCollections = async () => {
  const status = document.getElementById("status");
  try {
    const { collections } = await ask("/v1/collections?limit=1000");
    const select = document.querySelector("select");
    for (const one of collections) {
      const { normal, anomalous, unlabelled, example } = one.roles;
      const cells = [one.name, normal, anomalous, unlabelled + example, one.weights_label, one.revision];
      document.querySelector("tbody").append(element("tr", {}, ...cells.map((cell) => element("td", { textContent: cell }))));
      select.append(element("option", { textContent: one.name }));
      if (one.weights_label === "stand-in") document.getElementById("stand-in").hidden = false;
    }
    document.getElementById("collections").hidden = !collections.length;
    status.textContent = collections.length ? "" : "No collection yet; the first steps below make one.";
  } catch (error) {
    status.textContent = `The collections cannot be shown: ${error.message}`;
  }
};

const verdict = (result) => {
  if (result.anomalous === null) return element("span", { textContent: "too few normal images for a verdict" });
  return result.anomalous
    ? element("span", { className: "anomalous", textContent: "anomalous" })
    : element("span", { className: "belongs", textContent: "belongs" });
};

document.getElementById("score").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  const collection = encodeURIComponent(form.get("collection"));
  form.delete("collection");
  const results = document.getElementById("results");
  results.textContent = "Scoring…";
  try {
    const answer = await ask(`/v1/collections/${collection}/anomaly`, { method: "POST", body: form });
    const { n, false_alarm_rate: rate, supported } = answer.calibration;
    const promise = `Verdicts at a false-alarm rate of ${(100 * rate).toFixed(2)} %, from ${n} normal images${supported ? "" : " (too few for the rate asked for)"}.`;
    results.replaceChildren(element("p", { textContent: promise }));
    answer.results.forEach((result, place) => {
      const file = form.getAll("files")[place];
      if (result.problem) {
        results.append(element("p", { className: "anomalous", textContent: `${file.name}: ${result.problem.detail}` }));
        return;
      }
      const p = result.p_value === null ? "–" : result.p_value.toPrecision(3);
      const row = element("div", { className: "result" }, element("span", { textContent: file.name }), verdict(result),
        element("span", { textContent: `score ${result.score.toPrecision(4)}, p = ${p}; nearest normal images:` }));
      for (const near of result.neighbours) {
        const source = `/v1/collections/${collection}/images/${encodeURIComponent(near.id)}/thumbnail`;
        row.append(element("figure", {}, element("img", { src: source, alt: `normal image ${near.id}` }),
          element("figcaption", { textContent: `${near.metadata.filename || near.id} · ${near.distance.toPrecision(3)}` })));
      }
      results.append(row);
    });
  } catch (error) {
    results.textContent = `Not scored: ${error.message}`;
  }
});

showCollections();
