/** Writes one set of files, as the helper does, and ends: what the crash tests end in the middle. */
import { writeFiles } from '../../../proxy/helper/files.ts';
import { markedFiles, placeOf } from './marked-files.ts';

const [directory = '', atomic, mark = ''] = process.argv.slice(2);
(globalThis as { begin?: () => void }).begin?.();
await writeFiles(placeOf(directory, atomic as 'link' | 'rename'), markedFiles(mark));
