/** The exported names of `@warifu/spiffe` as the compiler sees them: what each is, its docstring, and the types that it speaks of. */
import { readFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import * as ast from 'typescript/unstable/ast';
import { API, type Checker, type Project, type Symbol as Known, SymbolFlags } from 'typescript/unstable/sync';

export interface Doc {
  /** Paragraphs. */
  readonly text: readonly string[];
  readonly params: readonly (readonly [name: string, text: string])[];
  /** What stands behind the parameters though it is about the whole: how it fails. */
  readonly fails: string;
}

export interface Member {
  readonly name: string;
  /** As it is written, without its body, on one line. */
  readonly signature: string;
  /** `name?`: it may be left out. */
  readonly optional: boolean;
  /** Its body throws, or calls what does. */
  readonly refuses: boolean;
  readonly doc: Doc;
}

export interface Named {
  readonly name: string;
  readonly kind: 'class' | 'interface' | 'type' | 'function' | 'const';
  /** From the root of the repository. */
  readonly file: string;
  readonly doc: Doc;
  /** `extends …`, `implements …`. */
  readonly heritage: readonly string[];
  /** What is shown as it is written: of functions each overload; of types the whole. */
  readonly code: string;
  /** Of functions: the body throws, or calls what does. */
  readonly refuses: boolean;
  /** Of classes and interfaces. */
  readonly members: readonly Member[];
  /** Types of ours in its signatures, by `keyOf`. */
  readonly mentions: readonly Named[];
}

/** One subpath export. */
export interface Entry {
  /** `@warifu/spiffe/jwt`. */
  readonly specifier: string;
  readonly file: string;
  /** What its file says of itself. */
  readonly about: string;
  readonly names: readonly Named[];
}

export const ROOT = resolve(import.meta.dirname, '../..');

type Declaration =
  | ast.ClassDeclaration
  | ast.InterfaceDeclaration
  | ast.TypeAliasDeclaration
  | ast.FunctionDeclaration
  | ast.VariableDeclaration;

/** Reads the sources; nothing has to be built. */
export function readEntries(): readonly Entry[] {
  const api = new API({ cwd: ROOT });
  try {
    const config = join(ROOT, 'tsconfig.sdk.json');
    const project = api.updateSnapshot({ openProjects: [config] }).getProject(config);
    if (!project) throw new Error(`${config}: no project`);
    const reader = new Reader(project);
    const { exports } = JSON.parse(readFileSync(join(ROOT, 'spiffe/package.json'), 'utf8')) as {
      exports: Readonly<Record<string, string | { readonly default: string }>>;
    };
    return Object.entries(exports).flatMap(([subpath, to]) =>
      typeof to === 'string' ? [] : [reader.entry(subpath, to.default.replace('./dist/', '').replace(/\.js$/, '.ts'))],
    );
  } finally {
    api.close();
  }
}

class Reader {
  readonly #project: Project;
  readonly #checker: Checker;
  /** Each declaration is one value, also where types speak of each other. */
  readonly #known = new Map<string, Named>();
  /** By where a declaration stands. While its own body is looked at: false. */
  readonly #refusing = new Map<string, boolean>();

  constructor(project: Project) {
    this.#project = project;
    this.#checker = project.checker;
  }

  entry(subpath: string, file: string): Entry {
    const source = this.#project.program.getSourceFile(join(ROOT, file));
    const module = source && this.#checker.getSymbolAtLocation(source);
    if (!source || !module) throw new Error(`${subpath} of spiffe/package.json: ${file} is no module of tsconfig.sdk.json`);
    return {
      specifier: join('@warifu/spiffe', subpath),
      file,
      about: docOf(source.text, 0, source.text.indexOf('*/') + 2).text.join(' '),
      names: this.#checker.getExportsOfModule(module).map((one) => this.#named(one)),
    };
  }

  #named(symbol: Known): Named {
    const target = symbol.flags & SymbolFlags.Alias ? this.#checker.getAliasedSymbol(symbol) : symbol;
    const nodes = target.declarations.map((handle) => handle.resolve(this.#project)).filter(isDeclaration);
    const [first] = nodes;
    if (!first) throw new Error(`${symbol.name}: no declaration that can be shown`);
    const file = relative(ROOT, first.getSourceFile().fileName);
    const key = `${file} ${target.name}`;
    const known = this.#known.get(key);
    if (known) return known;
    const mentions: Named[] = [];
    const shown = withoutImplementation(nodes);
    const made: Named = {
      name: target.name,
      ...this.#describe(target, first, shown),
      file,
      doc: shown.map(commentOf).find(({ text, params }) => text.length + params.length > 0) ?? { text: [], params: [], fails: '' },
      mentions,
    };
    this.#known.set(key, made);
    mentions.push(...new Set(shown.flatMap((node) => this.#mentioned(node)).filter((one) => one !== made)));
    return made;
  }

  #describe(
    symbol: Known,
    first: Declaration,
    all: readonly Declaration[],
  ): Pick<Named, 'kind' | 'heritage' | 'code' | 'refuses' | 'members'> {
    if (ast.isClassDeclaration(first) || ast.isInterfaceDeclaration(first)) {
      const members = withoutImplementation([...first.members].filter(isPublic));
      return {
        kind: ast.isClassDeclaration(first) ? 'class' : 'interface',
        heritage: (first.heritageClauses ?? []).map((clause) => clause.getText()),
        code: '',
        refuses: false,
        members: members.map((one) => ({
          name: memberName(one),
          signature: memberSignature(one, symbol.name),
          optional: /^\w+\?/.test(one.getText().replace(/^(?:readonly |override )*/, '')),
          refuses: this.#refuses(one),
          doc: commentOf(one),
        })),
      };
    }
    const none = { heritage: [], refuses: false, members: [] };
    if (ast.isFunctionDeclaration(first)) {
      const refuses = symbol.declarations.some((handle) => this.#refuses(handle.resolve(this.#project)));
      return { kind: 'function', ...none, code: all.map((one) => `function ${head(one, one.name)}`).join('\n'), refuses };
    }
    if (ast.isTypeAliasDeclaration(first)) return { kind: 'type', ...none, code: `type ${head(first, first.name)}` };
    const type = this.#checker.getTypeOfSymbol(symbol);
    return { kind: 'const', ...none, code: `const ${symbol.name}: ${type ? this.#checker.typeToString(type) : 'unknown'}` };
  }

  /** The types of ours that a signature speaks of, without what stands in bodies and private members. */
  #mentioned(node: ast.Node): Named[] {
    if (ast.isBlock(node) || !isPublic(node)) return [];
    const found: Named[] = [];
    const name = ast.isTypeReferenceNode(node) ? node.typeName : ast.isExpressionWithTypeArguments(node) ? node.expression : undefined;
    const symbol = name && this.#checker.getSymbolAtLocation(name);
    if (symbol && this.#isOurs(symbol)) found.push(this.#named(symbol));
    node.forEachChild((child) => void found.push(...this.#mentioned(child)));
    return found;
  }

  #refuses(declaration: ast.Node | undefined): boolean {
    const body = declaration && bodyOf(declaration);
    if (!body) return false;
    const key = `${body.getSourceFile().fileName} ${body.pos}`;
    const known = this.#refusing.get(key);
    if (known !== undefined) return known;
    this.#refusing.set(key, false);
    const refuses = this.#throws(body);
    this.#refusing.set(key, refuses);
    return refuses;
  }

  /** What is caught, and what functions inside do when they are called some day, does not count. */
  #throws(node: ast.Node): boolean {
    if (ast.isThrowStatement(node)) return true;
    if (ast.isTryStatement(node) && node.catchClause)
      return this.#throws(node.catchClause) || (node.finallyBlock !== undefined && this.#throws(node.finallyBlock));
    if (bodyOf(node)) return false;
    if ((ast.isCallExpression(node) || ast.isNewExpression(node)) && this.#called(node.expression).some((one) => this.#refuses(one)))
      return true;
    let found = false;
    node.forEachChild((child) => {
      found ||= this.#throws(child);
    });
    return found;
  }

  #called(expression: ast.Node): readonly (ast.Node | undefined)[] {
    const symbol = this.#checker.getSymbolAtLocation(ast.isPropertyAccessExpression(expression) ? expression.name : expression);
    const target = symbol && symbol.flags & SymbolFlags.Alias ? this.#checker.getAliasedSymbol(symbol) : symbol;
    const ours = target?.declarations.filter(({ path }) => relative(ROOT, path).startsWith('spiffe/')) ?? [];
    return ours.flatMap((handle) => {
      const node = handle.resolve(this.#project);
      return node && ast.isClassDeclaration(node) ? [...node.members].filter((one) => ast.isConstructorDeclaration(one)) : [node];
    });
  }

  #isOurs(symbol: Known): boolean {
    const target = symbol.flags & SymbolFlags.Alias ? this.#checker.getAliasedSymbol(symbol) : symbol;
    const [first] = target.declarations;
    const node = first && relative(ROOT, first.path).startsWith('spiffe/') ? first.resolve(this.#project) : undefined;
    return isDeclaration(node);
  }
}

function isDeclaration(node: ast.Node | undefined): node is Declaration {
  return (
    node !== undefined &&
    (ast.isClassDeclaration(node) ||
      ast.isInterfaceDeclaration(node) ||
      ast.isTypeAliasDeclaration(node) ||
      ast.isFunctionDeclaration(node) ||
      ast.isVariableDeclaration(node))
  );
}

/** Where there are overloads, they are what callers see. */
function withoutImplementation<N extends ast.Node>(nodes: readonly N[]): readonly N[] {
  const hasBody = (node: N) => bodyOf(node) !== undefined;
  return nodes.filter(
    (node) => !hasBody(node) || !nodes.some((other) => other !== node && !hasBody(other) && nameOf(other) === nameOf(node)),
  );
}

function bodyOf(node: ast.Node): ast.Node | undefined {
  return (node as { readonly body?: ast.Node }).body;
}

function nameOf(node: ast.Node): string {
  return (node as { readonly name?: ast.Node }).name?.getText() ?? '';
}

function isPublic(member: ast.Node): boolean {
  const { modifiers } = member as { readonly modifiers?: readonly ast.Node[] };
  const hidden = modifiers?.some(({ kind }) => kind === ast.SyntaxKind.PrivateKeyword || kind === ast.SyntaxKind.ProtectedKeyword);
  // how Node prints a value is not for callers
  return !hidden && !nameOf(member).startsWith('#') && !/inspect\.custom/.test(nameOf(member));
}

function memberName(member: ast.Node): string {
  return ast.isConstructorDeclaration(member) ? 'constructor' : nameOf(member);
}

/** Without modifiers that tell a caller nothing; a getter looks like the value that it gives. */
function memberSignature(member: ast.Node, owner: string): string {
  const text = head(member)
    .replaceAll(/\/\*\*[\s\S]*?\*\//g, '')
    .replaceAll(/\s+/g, ' ')
    .replaceAll(/([([]) (?=\S)|,? (?=[)\]])/g, '$1');
  const bare = text.replace(/^(?:(?:readonly|override|async|public) |(static )(?:async )?)*/, '$1').replace(/^\*|^async \*/, '');
  if (ast.isConstructorDeclaration(member)) return bare.replace(/^constructor/, `new ${owner}`);
  if (ast.isGetAccessorDeclaration(member)) return bare.replace(/^(static )?get /, '$1').replace('()', '');
  if (ast.isPropertyDeclaration(member) && member.initializer)
    return bare.slice(0, bare.length - member.initializer.getText().replaceAll(/\s+/g, ' ').length).replace(/ ?= ?$/, '');
  return bare.replace(/;$/, '').replace(/^(\w+\?: .*) \| undefined$/, '$1');
}

/** From its name, or its beginning, to where its body begins. */
function head(node: ast.Node, from: ast.Node = node): string {
  const { text } = node.getSourceFile();
  return text
    .slice(from.getStart(), bodyOf(node)?.getStart() ?? node.end)
    .trim()
    .replace(/;$/, '');
}

/** The docstring right before a declaration. A variable's stands before its whole statement. */
function commentOf(node: ast.Node): Doc {
  const whole = ast.isVariableDeclaration(node) ? node.parent.parent : node;
  return docOf(whole.getSourceFile().text, whole.pos, whole.getStart());
}

function docOf(text: string, from: number, to: number): Doc {
  // behind an empty line it is the file's
  const comment = /\/\*\*((?:(?!\*\/)[\s\S])*)\*\/[ \t]*\n?[ \t]*$/.exec(text.slice(from, to))?.[1] ?? '';
  const lines = comment.split('\n').map((line) => line.trim().replace(/^\*( |$)/, ''));
  const [body = '', ...tags] = lines.join('\n').split(/(?:^|(?<=\s))@(?=(?:param|returns)\b)/);
  const paragraph = (part: string) => part.replaceAll(/\s+/g, ' ').trim();
  const params = tags.flatMap((tag) => {
    const [, name, told = ''] = /^param (\w+)\s+([\s\S]*)$/.exec(tag) ?? [];
    return name ? [[name, paragraph(told)] as const] : [];
  });
  const [, fails = ''] = /(?:^|\. )(Throws .*)$/.exec(params.at(-1)?.[1] ?? '') ?? [];
  const gives = tags.filter((tag) => tag.startsWith('returns')).map((tag) => tag.replace('returns', 'Gives'));
  return {
    text: [...body.split(/\n\s*\n/), ...gives].map(paragraph).filter((part) => part !== ''),
    params: params.map(([name, told]) => [name, told.endsWith(fails) ? told.slice(0, told.length - fails.length).trim() : told]),
    fails,
  };
}
