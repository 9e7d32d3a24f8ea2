/** The manifests in deploy/kubernetes: as Kubernetes' own schemas want them, consistent with one another, and with the command line that they use. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Deployment, StatefulSet } from 'kubernetes-models/apps/v1';
import { Job } from 'kubernetes-models/batch/v1';
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1';
import { Secret, Service } from 'kubernetes-models/v1';
import * as v from 'valibot';
import { describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { coordinatorCommand } from '../../src/cli/coordinator.ts';

const FOLDER = fileURLToPath(new URL('../../deploy/kubernetes/', import.meta.url));

const label = v.pipe(v.string(), v.regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/), v.maxLength(63));
const labels = v.record(v.string(), v.string());
const metadata = v.strictObject({ name: label, labels: v.exactOptional(labels) });
const quantity = v.pipe(v.string(), v.regex(/^\d+(\.\d+)?(m|Ki|Mi|Gi)?$/));
const port = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535));
const count = v.pipe(v.number(), v.integer(), v.minValue(0));

/** Numbers in a variable's value must be quoted: Kubernetes takes strings only. */
const variable = v.strictObject({
  name: v.string(),
  value: v.exactOptional(v.string()),
  valueFrom: v.exactOptional(
    v.union([
      v.strictObject({ fieldRef: v.strictObject({ fieldPath: v.string() }) }),
      v.strictObject({ secretKeyRef: v.strictObject({ name: label, key: v.string() }) }),
    ]),
  ),
});

const container = v.strictObject({
  name: label,
  image: v.string(),
  command: v.array(v.string()),
  env: v.array(variable),
  ports: v.exactOptional(v.array(v.strictObject({ name: label, containerPort: port }))),
  readinessProbe: v.exactOptional(v.strictObject({ tcpSocket: v.strictObject({ port: label }), periodSeconds: count })),
  resources: v.record(v.picklist(['requests', 'limits']), v.record(v.picklist(['cpu', 'memory']), quantity)),
});

const pod = v.strictObject({
  metadata: v.strictObject({ labels }),
  spec: v.strictObject({
    terminationGracePeriodSeconds: count,
    restartPolicy: v.exactOptional(v.picklist(['Never', 'OnFailure', 'Always'])),
    topologySpreadConstraints: v.exactOptional(
      v.array(
        v.strictObject({
          maxSkew: count,
          topologyKey: v.string(),
          whenUnsatisfiable: v.picklist(['DoNotSchedule', 'ScheduleAnyway']),
          labelSelector: v.strictObject({ matchLabels: labels }),
        }),
      ),
    ),
    containers: v.array(container),
  }),
});

const selector = v.strictObject({ matchLabels: labels });

const resource = v.variant('kind', [
  v.strictObject({
    apiVersion: v.literal('v1'),
    kind: v.literal('Secret'),
    metadata,
    type: v.literal('Opaque'),
    stringData: v.record(v.string(), v.string()),
  }),
  v.strictObject({
    apiVersion: v.literal('v1'),
    kind: v.literal('Service'),
    metadata,
    spec: v.strictObject({
      clusterIP: v.exactOptional(v.literal('None')),
      selector: labels,
      ports: v.array(v.strictObject({ name: label, port, targetPort: v.exactOptional(label) })),
    }),
  }),
  v.strictObject({
    apiVersion: v.literal('policy/v1'),
    kind: v.literal('PodDisruptionBudget'),
    metadata,
    spec: v.strictObject({ minAvailable: count, selector }),
  }),
  v.strictObject({
    apiVersion: v.literal('apps/v1'),
    kind: v.literal('Deployment'),
    metadata,
    spec: v.strictObject({
      replicas: count,
      selector,
      strategy: v.strictObject({
        type: v.literal('RollingUpdate'),
        rollingUpdate: v.strictObject({ maxUnavailable: count, maxSurge: count }),
      }),
      template: pod,
    }),
  }),
  v.strictObject({
    apiVersion: v.literal('apps/v1'),
    kind: v.literal('StatefulSet'),
    metadata,
    spec: v.strictObject({
      serviceName: label,
      replicas: count,
      podManagementPolicy: v.picklist(['Parallel', 'OrderedReady']),
      selector,
      template: pod,
    }),
  }),
  v.strictObject({
    apiVersion: v.literal('batch/v1'),
    kind: v.literal('Job'),
    metadata,
    spec: v.strictObject({
      completions: count,
      parallelism: count,
      completionMode: v.literal('Indexed'),
      backoffLimitPerIndex: count,
      template: pod,
    }),
  }),
]);

type Resource = v.InferOutput<typeof resource>;

function documents(): { readonly name: string; readonly plain: unknown }[] {
  return readdirSync(FOLDER)
    .filter((name) => name.endsWith('.yaml'))
    .flatMap((name) =>
      parseAllDocuments(readFileSync(`${FOLDER}${name}`, 'utf8')).map((document) => {
        expect(document.errors, name).toEqual([]);
        return { name, plain: document.toJS() as unknown };
      }),
    );
}

function read(): Resource[] {
  return documents().map(({ name, plain }) => {
    const parsed = v.safeParse(resource, plain);
    expect(parsed.issues?.map((issue) => `${v.getDotPath(issue)}: ${issue.message}`) ?? [], name).toEqual([]);
    return parsed.output as Resource; // without issues it is one
  });
}

/** By kind, with the schemas that Kubernetes publishes. They say what each field must be; what they don't know passes, so we look ourselves (above). */
const MODELS = { Secret, Service, PodDisruptionBudget, Deployment, StatefulSet, Job };

/** @throws what the schema finds wrong */
function validate(plain: Resource): void {
  const model = new (MODELS[plain.kind] as new (data: unknown) => { validate(): void })(plain); // each takes what it is of
  model.validate();
}

function spec(one: Resource): object {
  return 'spec' in one ? one.spec : {};
}

describe('the manifests for Kubernetes', () => {
  const resources = read();

  test("are as Kubernetes' schemas want them", () => {
    for (const one of resources) expect(() => validate(one), `${one.kind} ${one.metadata.name}`).not.toThrow();
  });

  test.each([
    ['a string for a number', (one: Resource) => Object.assign(one, { spec: { ...spec(one), replicas: 'two' } })],
    ['no selector', (one: Resource) => Object.assign(one, { spec: { ...spec(one), selector: undefined } })],
    ['a label that is a number', (one: Resource) => Object.assign(one.metadata, { labels: { app: 1 } })],
  ])('are refused with %s', (_, spoil) => {
    const one = structuredClone(resources.find(({ kind }) => kind === 'Deployment')!);
    spoil(one);
    expect(() => validate(one)).toThrow(/^data\//);
  });

  test('select the pods that they make, and name only what is there', () => {
    const podLabels = resources.flatMap((one) =>
      'spec' in one && 'template' in one.spec ? [one.spec.template.metadata.labels] : [],
    );
    const secrets = new Map(
      resources.flatMap((one) => (one.kind === 'Secret' ? [[one.metadata.name, one.stringData]] : [])),
    );
    expect(podLabels).toHaveLength(3);
    for (const one of resources) {
      if (!('spec' in one)) continue;
      const wanted = 'selector' in one.spec ? one.spec.selector : null;
      const match = wanted === null ? null : 'matchLabels' in wanted ? wanted.matchLabels : wanted;
      if (match !== null) expect(podLabels, `${one.kind} ${one.metadata.name}`).toContainEqual(match);
      if (!('template' in one.spec)) continue;
      for (const { env } of one.spec.template.spec.containers)
        for (const { valueFrom } of env)
          if (valueFrom !== undefined && 'secretKeyRef' in valueFrom)
            expect(secrets.get(valueFrom.secretKeyRef.name)).toHaveProperty(valueFrom.secretKeyRef.key);
    }
    const set = resources.find((one) => one.kind === 'StatefulSet');
    expect(resources.some((one) => one.kind === 'Service' && one.metadata.name === set?.spec.serviceName)).toBe(true);
  });

  test('start the coordinator with options that it has, two at a time, at the address that peers are given', () => {
    const deployment = resources.find((one) => one.kind === 'Deployment')!;
    expect(deployment.spec.replicas).toBe(2);
    const { command } = deployment.spec.template.spec.containers[0]!;
    expect(command.slice(0, 3)).toEqual(['npx', 'skein', 'coordinator']);
    const own = coordinatorCommand();
    const options = command.slice(3).filter((word) => word.startsWith('--'));
    for (const option of options) expect(own.options.map(({ long }) => long)).toContain(option);
    const service = resources.find((one) => one.kind === 'Service' && one.spec.clusterIP === undefined);
    const address = `tcp://${service?.metadata.name}:7400`;
    for (const one of resources) {
      if (one.kind !== 'StatefulSet' && one.kind !== 'Job') continue;
      const { env } = one.spec.template.spec.containers[0]!;
      expect(env.find(({ name }) => name === 'SKEIN_COORDINATOR')?.value).toBe(address);
    }
  });
});
