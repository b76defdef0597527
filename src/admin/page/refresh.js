
// Fetches the page again every five seconds and takes over its content. The place in the page and in
// each table stays, as does the focus. While text in it is selected the content stays as it is, and
// the head says so; it says as well when there is no answer in time.
const every = 5000, within = 4000;
let asking = false;

const tables = () => new Map(
  [...document.querySelectorAll(".scroll")].map((table) => [table.getAttribute("aria-labelledby"), table]));

const selected = () => {
  const selection = getSelection();
  return !selection.isCollapsed && selection.containsNode(document.querySelector("main"), true);
};

const takeOver = (main) => {
  const before = tables(), focus = document.activeElement;
  const places = [...before].map(([name, table]) => [name, table.scrollLeft, table === focus]);
  document.querySelector("main").replaceWith(main);
  const now = tables();
  for (const [name, left, focused] of places) {
    const table = now.get(name);
    if (!table) continue;
    table.scrollLeft = left;
    if (focused) table.focus({ preventScroll: true });
  }
};

const refresh = async () => {
  if (asking) return;
  // Nobody looks; whoever comes back is not to find an old page called live.
  if (document.hidden) {
    document.body.className = "";
    return;
  }
  asking = true;
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), within);
  try {
    const answer = await fetch(location.href, { signal: patience.signal });
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.title = page.title;
    if (selected()) {
      document.body.className = "paused";
    } else {
      takeOver(page.querySelector("main"));
      document.body.className = "live";
    }
  } catch {
    document.title = document.title.replace(/^.*? – /, "No answer – ");
    document.body.className = "stale";
  } finally {
    clearTimeout(timer);
    asking = false;
  }
};

setInterval(refresh, every);
document.addEventListener("visibilitychange", refresh);
