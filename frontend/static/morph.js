// Makes a part of the page like a fresh copy of it and touches only what differs: whatever stays the same keeps its
// focus, its scroll position, its selected text and its animation.

export function morph(part, fresh) {
  let place = 0;
  for (const wanted of [...fresh.childNodes]) {
    const there = part.childNodes[place];
    const own = there && isSame(there, wanted) ? there : laterSibling(there, wanted);
    if (!own) part.insertBefore(wanted, there ?? null);
    else {
      if (own !== there) part.insertBefore(own, there);
      become(own, wanted);
    }
    place += 1;
  }
  while (part.childNodes.length > place) part.lastChild.remove();
}

const isSame = (one, other) => one.nodeName === other.nodeName && (one.id ?? "") === (other.id ?? "");

// Only what has an id is looked for further on: anything else is as well made new.
function laterSibling(node, wanted) {
  if (!wanted.id) return null;
  while (node && !isSame(node, wanted)) node = node.nextSibling;
  return node;
}

function become(node, wanted) {
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.data !== wanted.data) node.data = wanted.data;
    return;
  }
  if (node.isEqualNode(wanted)) return;
  for (const { name } of [...node.attributes]) {
    if (!wanted.hasAttribute(name)) node.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  morph(node, wanted);
}
