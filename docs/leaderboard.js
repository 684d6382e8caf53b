// Sorts and filters the leaderboard; without it the table is whole, in its first order.
document.addEventListener("DOMContentLoaded", () => {
  const table = document.getElementById("board");
  if (!table) return;
  const body = table.tBodies[0];
  const value = (cell) => cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  table.querySelectorAll("thead th").forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].sort((one, other) => {
        const [a, b] = [value(one.cells[column]), value(other.cells[column])];
        // what is no number comes last in both directions
        if (a >= 1e8 || b >= 1e8) return (a >= 1e8) - (b >= 1e8);
        const order = typeof a === "number" ? a - b : a.localeCompare(b);
        return up ? order : -order;
      });
      body.append(...rows);
    });
  });
  const name = document.getElementById("board-name");
  const zero = document.getElementById("board-zero");
  const how = document.getElementById("board-how");
  const filter = () => {
    for (const row of body.rows) {
      const shown = row.cells[0].textContent.includes(name.value.trim().toLowerCase())
        && (!zero.checked || row.dataset.zero !== undefined)
        && (!how.value || row.dataset.how === how.value);
      row.hidden = !shown;
    }
  };
  [name, zero, how].forEach((one) => one.addEventListener("input", filter));
});
