// The browser's memory of work that the server has not acknowledged yet, kept apart by account. Where storage is
// forbidden or full, it costs the offline copy only: drafts are on the server too.

export function openMemory(account) {
  const name = (key) => `podium.${account}.${key}`;
  return {
    read(key) {
      try {
        return JSON.parse(localStorage.getItem(name(key)));
      } catch {
        return null; // forbidden, or something else lies there
      }
    },
    write(key, value) {
      try {
        if (value === null) localStorage.removeItem(name(key));
        else localStorage.setItem(name(key), JSON.stringify(value));
      } catch {
        // Full or forbidden.
      }
    },
  };
}

/**
 * Submits on their way, the oldest first: { id, path, form, … }. The page that made one gave it its id, so that sending
 * it twice stores it once.
 */
export function openOutbox(memory, key) {
  let unsent = []; // where storage is forbidden
  const all = () => memory.read(key) ?? unsent;
  const set = (items) => {
    unsent = items;
    memory.write(key, items); // an empty list too: another tab must not take what it remembers for unsent
  };
  return {
    all,
    add: (item) => set([...all(), item]),
    // By id, not by place: another tab may have sent the first one already.
    remove: (id) => set(all().filter((item) => item.id !== id)),
  };
}
