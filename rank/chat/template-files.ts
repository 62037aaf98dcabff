/** The chat templates of a model folder, searched where Transformers does. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { NdsError } from '../../protocol/errors.ts';
import { readObject, readText } from '../text/tokenizer-files.ts';

/** The chat files of a model folder. */
export interface ChatTemplateFiles {
  /** Templates by name: `default`, and `tool_use` for conversations with tools. */
  readonly templates: ReadonlyMap<string, string>;
  /** Files that they come from, for errors. */
  readonly source: string;
}

/**
 * Reads chat_template.jinja and additional_chat_templates/, else `chat_template` of tokenizer_config.json, else that of
 * chat_template.json. A folder may have none.
 * @throws NdsError `ERR_TOKENIZER` for a file that is unreadable or of another shape.
 */
export async function readChatTemplateFiles(folder: string): Promise<ChatTemplateFiles> {
  const configFile = join(folder, 'tokenizer_config.json');
  const config = await readObject(configFile);
  const files = await readTemplateFiles(folder);
  if (files.size > 0) return { templates: files, source: files.has('default') ? join(folder, 'chat_template.jinja') : folder };
  const templates = parseTemplates(config?.['chat_template'], configFile);
  if (templates.size > 0) return { templates, source: configFile };
  const processorFile = join(folder, 'chat_template.json');
  const processor = await readObject(processorFile);
  return { templates: parseTemplates(processor?.['chat_template'], processorFile), source: processorFile };
}

async function readTemplateFiles(folder: string): Promise<Map<string, string>> {
  const templates = new Map<string, string>();
  const whole = await readText(join(folder, 'chat_template.jinja'));
  if (whole !== undefined) templates.set('default', whole);
  const more = join(folder, 'additional_chat_templates');
  const names = await readdir(more).catch(() => []);
  for (const name of names.filter((file) => file.endsWith('.jinja')).sort()) {
    templates.set(name.slice(0, -'.jinja'.length), (await readText(join(more, name))) ?? '');
  }
  return templates;
}

/** Parses a template, or a list of { name, template }. */
function parseTemplates(value: unknown, file: string): Map<string, string> {
  if (value === undefined || value === null) return new Map();
  if (typeof value === 'string') return new Map([['default', value]]);
  const entries = Array.isArray(value) ? (value as unknown[]) : [null];
  return new Map(
    entries.map((entry) => {
      const { name, template } = (entry ?? {}) as { name?: unknown; template?: unknown };
      if (typeof name === 'string' && typeof template === 'string') return [name, template];
      throw new NdsError('ERR_TOKENIZER', `Expected a string or a list of { name, template } as chat_template for ${file}`);
    }),
  );
}
