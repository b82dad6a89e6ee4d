/**
 * The code that the operating system gave, where an error carries one.
 */
export function hasSystemCode(error: unknown, code: string): boolean {
  return error instanceof Error && (error as { readonly code?: unknown }).code === code;
}
