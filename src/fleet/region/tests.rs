//! What becomes of a proxy's part in its region with what it hears.

use super::*;
use crate::provider::switchboard::{
    region::{Heard, channel},
    reserve::Reserve,
};

#[tokio::test]
async fn a_reserve_that_a_reload_makes_smaller_is_smaller_before_the_database_is_back() {
    for (most, left) in [(3, 2), (1, 1), (0, 0)] {
        let settings = serde_json::json!({"database": "postgresql://u@h/d", "name": "us-1",
            "region": "us", "reserve": most});
        let settings: Fleet = serde_json::from_value(settings).expect("settings");
        let long_ago = BootInstant::now().as_millis().saturating_sub(60_000);
        let heard = Heard::at(Some(BootInstant::from_millis(long_ago)), None, None);
        let reserve = Arc::new(Reserve::default());
        reserve.read(true, [(1, Some(7)), (2, Some(7))].into_iter());
        let (client, server) = channel(Arc::new(heard), Arc::clone(&reserve), Arc::default());
        let (_link, links) = watch::channel(Link::default());
        let region = Region::new(Arc::new(settings), server);
        let task = tokio::spawn(region.run(links));
        let mut ports = client.ports.clone();
        let is_alone = |ports: &Arc<RegionPorts>| matches!(ports.role, Role::Alone { .. });
        assert!(ports.wait_for(is_alone).await.is_ok());
        assert_eq!(reserve.left(), left);
        task.abort();
    }
}
