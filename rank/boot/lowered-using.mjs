/** Mends `using` and `await using` as esbuild lowers them for a Node that cannot parse them. */

/** esbuild's call at the end of a block, whose arguments are the block's resources, its error, and whether there is one. */
const disposal = /\b__callDispose\w*\((\w+),\s*(\w+),\s*(\w+)\)/g;

/**
 * esbuild keeps a block's error in `var`s that it never resets, so a block in a loop throws it again in every later
 * round. Here each round begins without one, where it makes its list of resources.
 * @param {string} code
 */
export function resetErrors(code) {
  return Array.from(code.matchAll(disposal)).reduce(
    (mended, [, stack, error, hasError]) =>
      mended.replace(new RegExp(`\\bvar ${stack}\\s*=\\s*\\[\\]`), `var ${stack} = [], ${error} = void 0, ${hasError} = false`),
    code,
  );
}
