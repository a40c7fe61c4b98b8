/** Send requests, throw errors, follow pages: the part of the client that is not generated. */

import createFetchClient, { type Client as FetchClient } from "openapi-fetch";

import type { components, paths } from "./schema.js";

export type * from "./schema.js";

/** The problem object of an error (RFC 9457). */
export type Problem = components["schemas"]["ProblemBody"];

/** All operations of the API, by path: `client.GET("/v1/rates", …)`. */
export type Client = FetchClient<paths>;

/** The service refused a request or failed. */
export class ApiError extends Error {
  /**
   * @param status Status code.
   * @param problem The problem object; null if a proxy has responded.
   */
  constructor(
    readonly status: number,
    readonly problem: Problem | null,
  ) {
    super(`${status}: ${problem?.detail ?? "no problem object"}`);
    this.name = "ApiError";
  }
}

/** How to reach the service. */
export interface Options {
  /** Address of the service, such as `https://rates.example`. */
  baseUrl: string;
  /** Bearer token, for deliveries and for private batches. */
  token?: string;
  /** Sends requests instead of the global `fetch`. */
  fetch?: (request: Request) => Promise<Response>;
}

/**
 * Create a client. Its promises reject with {@link ApiError} if the service refuses a request or fails.
 */
export function createClient({ baseUrl, token, fetch }: Options): Client {
  const client = createFetchClient<paths>({ baseUrl, ...(fetch ? { fetch } : {}) });
  client.use({
    onRequest({ request }) {
      if (token !== undefined) request.headers.set("Authorization", `Bearer ${token}`);
    },
    async onResponse({ response }) {
      if (response.ok) return;
      const isProblem = response.headers.get("Content-Type")?.startsWith("application/problem+json");
      throw new ApiError(response.status, isProblem ? ((await response.json()) as Problem) : null);
    },
  });
  return client;
}

/**
 * Yield a page of a listing and all pages after it, as their member `next` links them.
 *
 * @param page The first page.
 * @param read Reads the page at an address, for example `(next) => fetch(new URL(next, baseUrl)).then((r) => r.json())`.
 */
export async function* follow<Page extends { next: string | null }>(
  page: Page,
  read: (next: string) => Promise<Page>,
): AsyncGenerator<Page> {
  for (;;) {
    yield page;
    if (page.next === null) return;
    page = await read(page.next);
  }
}

/**
 * Yield the lines of a stream, such as an export that was requested with `parseAs: "stream"`.
 *
 * The iteration fails if the stream is cut, so that an incomplete export is not taken for a complete one.
 */
export async function* lines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
      const complete = rest.split(/\r?\n/);
      rest = complete.pop() ?? "";
      yield* complete;
      if (done) break;
    }
    if (rest !== "") yield rest;
  } finally {
    await reader.cancel();
  }
}
