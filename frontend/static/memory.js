// The browser's memory of work that the server has not acknowledged yet, kept apart by account. Where storage is
// forbidden or full, it costs the offline copy only: drafts are on the server too.

export function openMemory(account) {
  const name = (key) => `podium.${account}.${key}`;
  function readAs(whole) {
    try {
      return JSON.parse(localStorage.getItem(whole));
    } catch {
      return null; // forbidden, or something else lies there
    }
  }
  return {
    read: (key) => readAs(name(key)),
    /** Everything under keys that begin like this. */
    readAll(beginning) {
      try {
        return Object.keys(localStorage).filter((key) => key.startsWith(name(beginning))).map(readAs);
      } catch {
        return []; // forbidden
      }
    },
    /** False where it could not be kept. */
    write(key, value) {
      try {
        if (value === null) localStorage.removeItem(name(key));
        else localStorage.setItem(name(key), JSON.stringify(value));
        return true;
      } catch {
        return false; // full or forbidden
      }
    },
  };
}

/**
 * Submits on their way, the oldest first: { id, path, form, … }. The page that made one gave it its id, so that sending
 * it twice stores it once. Each has a key of its own: two tabs that write at the same moment lose nothing.
 */
export function openOutbox(memory, key) {
  let unkept = []; // where storage is full or forbidden: sent all the same, as long as the page is open
  const kept = () => memory.readAll(`${key}.`).filter((item) => item?.path);
  const all = () => [...kept(), ...unkept].sort((a, b) => a.place - b.place);
  return {
    all,
    add(item) {
      const placed = { ...item, place: 1 + (all().at(-1)?.place ?? 0) };
      if (!memory.write(`${key}.${item.id}`, placed)) unkept.push(placed);
    },
    remove(id) {
      memory.write(`${key}.${id}`, null);
      unkept = unkept.filter((item) => item.id !== id);
    },
  };
}
