// SPDX-License-Identifier: Apache-2.0
// What a dashboard of ours may be: the types that Grafana publishes, with those of each panel's kind
// in place of its `Record<string, unknown>`, in which any misspelt option would pass.
import type * as grafana from "@grafana/schema";
import type * as heatmap from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

/** The same with enumerations as their values, as JSON has them. */
type Plain<T> = T extends string
  ? `${T}`
  : T extends object
    ? { [K in keyof T]: Plain<T[K]> }
    : T;

/** Prometheus' part of a query is in no package of Grafana's that comes without the rest of it. */
interface Query extends Pick<grafana.DataQuery, "refId"> {
  datasource: grafana.DataSourceRef;
  editorMode: "code" | "builder";
  expr: string;
  format: "time_series" | "table" | "heatmap";
  instant: boolean;
  legendFormat: string;
  range: boolean;
}

interface Organize {
  id: "organize";
  options: {
    excludeByName: Record<string, boolean>;
    indexByName: Record<string, number>;
    renameByName: Record<string, string>;
  };
}

type Replaced = "type" | "options" | "fieldConfig" | "targets" | "transformations" | "title";

interface Of<Kind extends string, Options, Custom> extends Omit<grafana.Panel, Replaced> {
  type: Kind;
  title: string;
  options: Options;
  fieldConfig: {
    defaults: Omit<grafana.FieldConfig, "custom"> & { custom: Custom };
    overrides: grafana.FieldConfigSource["overrides"];
  };
  targets: Query[];
  transformations?: Organize[];
}

type Panel =
  | Of<"timeseries", timeseries.Options, timeseries.FieldConfig>
  | Of<"stat", stat.Options, Record<string, never>>
  | Of<"table", table.Options, table.FieldConfig>
  | Of<"heatmap", heatmap.Options, heatmap.FieldConfig>
  | grafana.RowPanel;

interface Annotations extends Omit<grafana.AnnotationQuery, "target"> {
  target: { expr: string; refId: "Anno" };
  titleFormat: string;
}

export type Dashboard = Plain<
  Omit<grafana.Dashboard, "panels" | "annotations"> & {
    panels: Panel[];
    annotations: { list: Annotations[] };
  }
>;
