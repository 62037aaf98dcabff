/** Typed arrays packed into one buffer at 64-byte boundaries, with a directory of their positions. */
import { NdsError } from './errors.ts';

const sectionAlignment = 64;

/** `[sectionId, byteOffset, byteLength]` per section, flat; native reads the same triples. */
export type Directory = Int32Array;

/** A section as a typed array. */
export type Section = Int32Array | Uint32Array | Float32Array | Float64Array;
/** Constructor of a section's typed array. */
export type SectionClass = { new (buffer: ArrayBufferLike, byteOffset: number, length: number): Section; BYTES_PER_ELEMENT: number };

/** Element type of each section, by id. */
export type Layout = ReadonlyMap<number, SectionClass>;

/** Packs sections into one buffer. Ids must be distinct; an empty section is kept, with length 0. */
export function packSections(sections: readonly (readonly [id: number, data: Section])[]): {
  directory: Directory;
  bytes: Uint8Array<ArrayBuffer>;
} {
  const directory = new Int32Array(sections.length * 3);
  let end = 0;
  sections.forEach(([id, data], i) => {
    directory[i * 3] = id;
    directory[i * 3 + 1] = end;
    directory[i * 3 + 2] = data.byteLength;
    end = Math.ceil((end + data.byteLength) / sectionAlignment) * sectionAlignment;
  });
  const words = new Int32Array(end / 4);
  sections.forEach(([, data], i) => {
    const offset = directory[i * 3 + 1] as number;
    // Same-class copy: viewing a small array's buffer would first move it off the JavaScript heap.
    if (data instanceof Int32Array) words.set(data, offset / 4);
    else new (data.constructor as SectionClass)(words.buffer, offset, data.length).set(data);
  });
  const bytes = new Uint8Array(words.buffer);
  return { directory, bytes };
}

/**
 * Zero-copy views of the sections, by id.
 * @throws NdsError `ERR_PROTOCOL` when a section is unknown, repeated, misaligned or outside the buffer.
 */
export function viewSections(directory: Directory, bytes: Uint8Array, layout: Layout): Map<number, Section> {
  if (directory.length % 3 !== 0) {
    throw new NdsError('ERR_PROTOCOL', `Expected a directory of triples but received ${directory.length} numbers`);
  }
  const views = new Map<number, Section>();
  for (let i = 0; i < directory.length; i += 3) {
    const id = directory[i] as number;
    const offset = directory[i + 1] as number;
    const length = directory[i + 2] as number;
    const type = layout.get(id);
    if (type === undefined) throw new NdsError('ERR_PROTOCOL', `Expected a known section but received section ${id}`);
    if (views.has(id)) throw new NdsError('ERR_PROTOCOL', `Expected section ${id} once but received it twice`);
    const fits = offset >= 0 && length >= 0 && offset % sectionAlignment === 0 && offset + length <= bytes.byteLength;
    if (!fits || length % type.BYTES_PER_ELEMENT !== 0) {
      throw new NdsError(
        'ERR_PROTOCOL',
        `Expected section ${id} inside ${bytes.byteLength} bytes but received offset ${offset}, length ${length}`,
      );
    }
    views.set(id, new type(bytes.buffer, bytes.byteOffset + offset, length / type.BYTES_PER_ELEMENT));
  }
  return views;
}
