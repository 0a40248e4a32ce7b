// Of one picture: name and score of the segment under the pointer; a click marks a pixel. `element` is the component.
const place = (event, svg) => {
  const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
  return [(event.clientX - box.left) / box.width * view.width, (event.clientY - box.top) / box.height * view.height];
};
const show = (event) => {
  const picture = event.target.closest(".lv-picture");
  for (const tip of element.querySelectorAll(".lv-tip")) tip.hidden = true;
  if (!picture || !event.target.dataset.name) return;
  const tip = picture.querySelector(".lv-tip"), box = picture.getBoundingClientRect();
  const { name, group, score } = event.target.dataset;
  tip.textContent = `${name}${group ? ` (${group})` : ""}, score ${score}`;
  tip.hidden = false;
  const left = event.clientX - box.left, top = event.clientY - box.top;
  tip.style.left = `${Math.max(0, Math.min(left + 14, box.width - tip.offsetWidth))}px`;
  tip.style.top = `${top > box.height / 2 ? top - tip.offsetHeight - 12 : top + 18}px`;
};
element.addEventListener("pointermove", show);
element.addEventListener("pointerdown", show);
element.addEventListener("pointerleave", show);
element.addEventListener("click", (event) => {
  const svg = event.target.closest(".lv-picture svg");
  if (!svg) return;
  const [x, y] = place(event, svg), photo = svg.closest(".lv-view").dataset.photo;
  for (const marks of document.querySelectorAll(".lv-clicks")) {
    if (marks.closest(".lv-view").dataset.photo !== photo) continue;
    const mark = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    for (const [key, value] of Object.entries({ cx: x, cy: y, r: marks.dataset.radius })) mark.setAttribute(key, value);
    marks.append(mark);
  }
  trigger("click", { x, y, photo });
});
