//! What a query can name: the program's relations, and DataFusion's functions.
//!
//! A view is a relation like a table, without a logical plan of its own, so that a query over it scans it and all its
//! readers share one node. No constraint is declared to the planner: it would trust them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result, TableReference, plan_err};
use datafusion_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF};
use datafusion_functions::core::planner::CoreFunctionPlanner;
use datafusion_functions::datetime::planner::DatetimeFunctionPlanner;
use datafusion_functions::unicode::planner::UnicodeFunctionPlanner;
use datafusion_functions_aggregate::planner::AggregateFunctionPlanner;
use datafusion_functions_nested::planner::{FieldAccessPlanner, NestedFunctionPlanner};
use datafusion_functions_window::planner::WindowFunctionPlanner;

use super::as_of;
use super::clock;
use super::date_trunc;
use super::json::{self, JsonOperators};
use super::long_texts;
use super::table_functions::WindowFunctions;
use super::types::Types;
use crate::circuit::plan::NodeId;

/// A table or view that queries can read.
#[derive(Clone, Debug)]
pub(super) struct Relation {
    pub schema: SchemaRef,
    pub node: NodeId,
}

impl TableSource for Relation {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// Functions by name and alias.
#[derive(Debug)]
pub(super) struct Functions {
    scalar: BTreeMap<String, Arc<ScalarUDF>>,
    higher_order: BTreeMap<String, Arc<HigherOrderUDF>>,
    aggregate: BTreeMap<String, Arc<AggregateUDF>>,
    window: BTreeMap<String, Arc<WindowUDF>>,
}

impl Functions {
    fn new() -> Self {
        let mut functions = Self {
            scalar: BTreeMap::new(),
            higher_order: BTreeMap::new(),
            aggregate: BTreeMap::new(),
            window: BTreeMap::new(),
        };
        let scalar = datafusion_functions::all_default_functions();
        for f in scalar.into_iter().chain(datafusion_functions_nested::all_default_nested_functions()) {
            for name in names(f.name(), f.aliases()) {
                functions.scalar.insert(name, Arc::clone(&f));
            }
        }
        let own =
            clock::functions().into_iter().chain(json::functions()).chain([as_of::function(), date_trunc::function()]);
        for f in own.map(Arc::new) {
            for name in names(f.name(), f.aliases()) {
                functions.scalar.insert(name, Arc::clone(&f));
            }
        }
        for name in long_texts::NAMES {
            if let Some(f) = functions.scalar.get_mut(name) {
                *f = long_texts::bounded(Arc::clone(f));
            }
        }
        // The standard's name.
        if let Some(sign) = functions.scalar.get("signum").cloned() {
            functions.scalar.insert("sign".to_owned(), sign);
        }
        for f in datafusion_functions_nested::all_default_higher_order_functions() {
            for name in names(f.name(), f.aliases()) {
                functions.higher_order.insert(name, Arc::clone(&f));
            }
        }
        for f in datafusion_functions_aggregate::all_default_aggregate_functions() {
            for name in names(f.name(), f.aliases()) {
                functions.aggregate.insert(name, Arc::clone(&f));
            }
        }
        for f in datafusion_functions_window::all_default_window_functions() {
            for name in names(f.name(), f.aliases()) {
                functions.window.insert(name, Arc::clone(&f));
            }
        }
        functions
    }

    /// Every name that a query may call, aggregates that are not supported included.
    pub fn names(&self) -> Vec<String> {
        let higher = self.higher_order.keys();
        self.scalar
            .keys()
            .filter(|name| *name != as_of::MATCH)
            .chain(higher)
            .chain(self.aggregate.keys())
            .cloned()
            .collect()
    }
}

fn names(name: &str, aliases: &[String]) -> Vec<String> {
    std::iter::once(name).chain(aliases.iter().map(String::as_str)).map(str::to_lowercase).collect()
}

/// What DataFusion's planner looks names up in.
#[derive(Debug)]
pub(super) struct Catalog {
    pub relations: BTreeMap<String, Relation>,
    pub options: Arc<ConfigOptions>,
    functions: Functions,
    planners: Vec<Arc<dyn ExprPlanner>>,
    relation_planners: [Arc<dyn RelationPlanner>; 1],
    /// The relation that was asked for last and is not there.
    missing: RefCell<Option<String>>,
}

impl Catalog {
    pub fn new() -> Self {
        let mut options = ConfigOptions::default();
        options.sql_parser.map_string_types_to_utf8view = false;
        // They become joins like the correlated ones.
        options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
        Self {
            relations: BTreeMap::new(),
            options: Arc::new(options),
            functions: Functions::new(),
            planners: vec![
                Arc::new(JsonOperators),
                Arc::new(CoreFunctionPlanner::default()),
                Arc::new(NestedFunctionPlanner),
                Arc::new(FieldAccessPlanner),
                Arc::new(DatetimeFunctionPlanner),
                Arc::new(UnicodeFunctionPlanner),
                // They write count(*) as count(1).
                Arc::new(AggregateFunctionPlanner),
                Arc::new(WindowFunctionPlanner),
            ],
            relation_planners: [Arc::new(WindowFunctions)],
            missing: RefCell::new(None),
        }
    }

    pub fn functions(&self) -> &Functions {
        &self.functions
    }

    /// The relation that a query named in vain since the last call.
    pub fn take_missing(&self) -> Option<String> {
        self.missing.take()
    }
}

impl ContextProvider for Catalog {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        match (&name, self.relations.get(name.table())) {
            (TableReference::Bare { .. }, Some(relation)) => Ok(Arc::new(relation.clone())),
            _ => {
                self.missing.replace(Some(name.to_string()));
                plan_err!("there is no table or view `{name}`")
            }
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relation_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.functions.scalar.get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.functions.higher_order.get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.functions.aggregate.get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.functions.window.get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.functions.scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.functions.higher_order.keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.functions.aggregate.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.functions.window.keys().cloned().collect()
    }
}
