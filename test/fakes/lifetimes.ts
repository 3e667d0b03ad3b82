/** The lives of a program in a test: each call begins one, and ends the one before, as a restart does. */
export function lifetimes(): () => AbortSignal {
  let life = new AbortController();
  return () => {
    life.abort(new Error('the program ended'));
    life = new AbortController();
    return life.signal;
  };
}
