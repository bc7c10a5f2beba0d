// Numbers and times as people read them.

const MISSING = "–";

/** A number with some significant digits. */
export function number(x, digits = 4) {
  if (x === null || x === undefined) return MISSING;
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e6 || size < 1e-4) return x.toExponential(digits - 1);
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return x.toFixed(Math.min(decimals, 8));
}

/** A number with some decimals. */
export function fixed(x, decimals) {
  return x === null || x === undefined ? MISSING : x.toFixed(decimals);
}

/** A count, in groups of three digits. */
export function count(x) {
  return x === null || x === undefined ? MISSING : Math.round(x).toLocaleString("en");
}

/** A duration in seconds, in words. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return MISSING;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** How long ago a moment was. */
export function ago(moment) {
  const seconds = (Date.now() - new Date(moment)) / 1000;
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(moment).toLocaleDateString();
}
