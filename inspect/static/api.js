// The requests to the server.

const TIMEOUT = 10_000;

async function request(path, options) {
  const response = await fetch(`api/${path}`, { ...options, signal: AbortSignal.timeout(TIMEOUT), redirect: "error" });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `the server answers ${response.status}`);
  return answer;
}

export const get = (path, parameters = {}) => request(`${path}?${new URLSearchParams(parameters)}`);

export const post = (path, body) => request(path, {
  method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", "X-Inspect": "close" },
});
